"""Addresses on the command line: wrong ones end in one line, and no message shows their credentials."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from igvg_cli.app import main
from igvg_cli.options import refuse_addresses
from shards.remote_addresses import redact_addresses

USER = "http://anna:geheim123@127.0.0.1:1/x"
SIGNED = f"{USER}?token=geheim123"


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """The exit status and everything that a command line prints."""
    monkeypatch.setattr("sys.argv", ["igvg", *words])
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr("igvg_cli.app.handle_signals", lambda _: contextlib.nullcontext())
    monkeypatch.setattr("igvg_cli.streams.open_streams", lambda: None)
    monkeypatch.setattr("igvg_cli.app.ExitReport", SimpleNamespace())
    with pytest.raises(SystemExit) as ended:
        main()
    output = capsys.readouterr()
    return ended.value.code, " ".join((output.out + output.err).replace("│", " ").split())


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "--checkpoint", "shapes", "--shards", "x", "--split", "val", "--out", SIGNED],
        ["predict", "--checkpoint", "shapes", "--image", SIGNED, "--text", "x", "--out", "found"],
        ["predict", "--checkpoint", SIGNED, "--shards", "x", "--split", "val", "--out", "found"],
        ["prepare", "grefcoco", "--annotations", "x", "--images", "x", "--images", SIGNED, "--out", "found"],
        ["prepare", "webdataset", "--annotations", SIGNED, "--out", "found"],
        ["train", "--shards", "x", "--config", SIGNED, "--out", "found"],
        ["score", SIGNED, "--shards", "x", "--split", "val"],
        ["verify", SIGNED],
        ["inspect", SIGNED],
    ],
)
def test_a_path_that_is_an_address_is_wrong_usage(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, said = run(words, monkeypatch, capsys)
    assert status == 2
    assert "http://***@127.0.0.1:1/x?*** is an address; give a file or folder on this machine" in said
    assert "geheim123" not in said
    assert not list(tmp_path.iterdir())


def test_an_address_of_the_hub_is_wrong_usage_but_for_models(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = run(["verify", "hf://datasets/anna/set"], monkeypatch, capsys)
    assert status == 2
    assert "hf://datasets/anna/set is an address; give a file or folder on this machine" in said
    refuse_addresses({name: Path("hf://anna/net/file.pth") for name in ("checkpoint", "init", "masks")})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["audit", "--shards", "http://anna:geheim123@[::1/x"], "http://***@[::1/x is no address: expected"),
        (["train", "--shards", f"{USER}:0", "--out", "o"], "--shards http://***@127.0.0.1:1/x:0: a ratio is a number"),
        (["train", "--shards", "x", "--set", f"held_out={SIGNED}", "--out", "o"], "'http://***@127.0.0.1:1/x?***':"),
        (["train", "--shards", "x", "--set", f"shard={USER}", "--out", "o"], "shard=http://***@127.0.0.1:1/x: no"),
    ],
)
def test_an_error_about_an_address_is_one_line_without_its_password(
    words: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = run(words, monkeypatch, capsys)
    assert status == 1
    assert said.startswith("Error: ")
    assert expected in said
    assert "geheim123" not in said


def test_settings_are_shown_without_the_passwords_of_their_addresses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--held-out", SIGNED, "--held-out", "data/a@b?c", "--show-settings"]
    status, said = run(words, monkeypatch, capsys)
    assert not status
    assert 'held_out = ["http://***@127.0.0.1:1/x?***", "data/a@b?c"]' in said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x: https://a:b/c@h/x?d=e: f", "x: https://***@h/x?***: f"),
        ("https://h:8000/@a/b?", "https://h:8000/@a/b?***"),
        (
            "no such set (https://h/x?d=e); or [https://h/x?d]: f",
            "no such set (https://h/x?***); or [https://h/x?***]: f",
        ),
        ("hf://datasets/USER/REPO@main/x is", "hf://datasets/USER/REPO@main/x is"),
        ("s3://KEY:SECRET@bucket/x, s3:/KEY:SECRET@bucket", "s3://***@bucket/x, s3:/***@bucket"),
        ("ratio 2:1, key a/b: who? me@home", "ratio 2:1, key a/b: who? me@home"),
    ],
)
def test_a_message_keeps_all_but_the_credentials_of_its_addresses(text: str, shown: str) -> None:
    assert redact_addresses(text) == shown
