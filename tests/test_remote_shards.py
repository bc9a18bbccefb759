"""Commands give the same results on shards of a server, also of one that fails, as on those of this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from tests.support.object_stores import serve_s3
from tests.support.pipeline_runs import (
    SMALL_NETWORK,
    draw_published,
    igvg,
    only_error,
    prepare,
    run_here,
    train_arguments,
)
from tests.support.remote_reading import use_cache
from tests.support.shard_server import ShardServer, serve_folder

STEPS = ("max_steps=4", "epochs=1", "workers=2")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    return prepare(draw_published(home / "published"), home / "shards")


@pytest.fixture
def server(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShardServer]:
    with use_cache(tmp_path / "cache", monkeypatch), serve_folder(shards) as running:
        yield running


def fail_often(server: ShardServer) -> None:
    for split in ("train", "val"):
        server.failures[f"{split}/{split}-000000.tar"] = ["truncate", "corrupt", 503]
        server.failures[f"{split}/index.json"] = ["close"]


@pytest.fixture(scope="module")
def local_run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training on the shards of this machine."""
    out = tmp_path_factory.mktemp("local") / "run"
    run_here(*train_arguments(shards, out, *STEPS))
    return out


def train_and_compare(local: Path, url: str, out: Path) -> None:
    """Train on an address, and compare what that leaves."""
    run_here(*train_arguments(url, out, *STEPS))
    for name in ("model.safetensors", "tokenizer.json"):
        if (local / name).exists():
            assert (local / name).read_bytes() == (out / name).read_bytes()
    records = [json.loads((run / "artifact.json").read_text()) for run in (local, out)]
    assert (records[0]["fingerprint"], records[0]["counts"]) == (records[1]["fingerprint"], records[1]["counts"])
    lines = [
        [{key: value for key, value in json.loads(line).items() if "loss" in key} for line in log.splitlines()]
        for log in ((run / "log.jsonl").read_text() for run in (local, out))
    ]
    assert lines[0] == lines[1]
    assert any(lines[0])


def test_training_on_remote_shards_gives_the_same_weights(local_run: Path, server: ShardServer, tmp_path: Path) -> None:
    fail_often(server)
    train_and_compare(local_run, server.url, tmp_path / "run")


def test_training_on_an_object_store_gives_the_same_weights(
    shards: Path, local_run: Path, server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_s3() as store:
        store.add_folder("bucket", "set", shards)
        store.failures["set/train/train-000000.tar"] = [503, 503]
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        train_and_compare(local_run, "s3://bucket/set", tmp_path / "run")


def test_predictions_scores_and_reports_on_remote_shards_are_the_same(
    shards: Path, server: ShardServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_often(server)
    printed = []
    for run, source in (("local", shards), ("remote", server.url)):
        run_here("predict", "--checkpoint", "shapes", "--shards", source, "--split", "val", "--out", tmp_path / run)
        capsys.readouterr()
        run_here("score", tmp_path / run, "--shards", source, "--split", "val", "--format", "json")
        printed.append(capsys.readouterr().out)
        run_here("report", tmp_path / run, "--shards", source, "--split", "val", "--out", tmp_path / f"{run}-report")
    assert json.loads(printed[0])["expressions"]
    assert printed[0] == printed[1]
    assert (tmp_path / "local/predictions.jsonl").read_bytes() == (tmp_path / "remote/predictions.jsonl").read_bytes()
    fingerprints = {
        json.loads((tmp_path / run / "artifact.json").read_text())["fingerprint"] for run in ("local", "remote")
    }
    assert len(fingerprints) == 1
    # Finished under one name, it is finished under the other.
    run_here("predict", "--checkpoint", "shapes", "--shards", server.url, "--split", "val", "--out", tmp_path / "local")


def test_a_server_that_does_not_recover_is_one_line_without_credentials(server: ShardServer, tmp_path: Path) -> None:
    server.always("val/val-000000.tar", 404)
    url = server.url.replace("//", "//anna:geheim123@") + "?token=abcdef123"
    arguments = ("predict", "--checkpoint", "shapes", "--shards", url, "--split", "val", "--out", tmp_path / "out")
    result = igvg(*arguments, IGVG_CACHE=str(tmp_path / "cache"))
    line = only_error(result)
    address = server.url.replace("//", "//***@")
    assert f"{address}/val/val-000000.tar?***: cannot be fetched, 3 attempts failed" in line
    for secret in ("geheim123", "abcdef123"):
        assert secret not in result.stderr + result.stdout
    assert not find_secrets(tmp_path)


def test_an_error_names_a_remote_set_by_its_address(server: ShardServer, tmp_path: Path) -> None:
    cache = {"IGVG_CACHE": str(tmp_path / "cache")}
    url = server.url.replace("//", "//anna:geheim123@")
    shown = server.url.replace("//", "//***@")
    line = only_error(igvg(*train_arguments(url, tmp_path / "run", 'splits=["other"]'), **cache))
    assert line.startswith(f"Error: {shown}: holds none of the splits to train on (other)")
    held_out = ("--held-out", url, "--set", 'splits=["train", "val", "testA", "testB"]')
    line = only_error(igvg(*train_arguments(url, tmp_path / "run"), *held_out, **cache))
    assert line.startswith(f"Error: {shown}: holds no held-out split")


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_what_reads_folders_alone_says_so_of_an_address(command: str) -> None:
    result = igvg(command, "https://example.org/shards?token=abcdef123")
    assert result.returncode == 2
    assert "https://example.org/shards?*** is an address" in " ".join(result.stderr.replace("│", " ").split())
    assert "abcdef123" not in result.stderr


def test_an_experiment_names_shards_by_their_addresses(server: ShardServer, tmp_path: Path) -> None:
    url = server.url.replace("//", "//anna:geheim123@")
    lines = [
        'out = "runs"', "[train]", f'shards = ["{url}/:2"]', f'held_out = ["{url}/?token=abcdef123"]',
        'preset = "tiny"', "max_steps = 2", *SMALL_NETWORK,
        "[predict]", f'splits = ["{url}/val"]', "[score]", "bootstrap = 0",
    ]  # fmt: skip
    experiment = tmp_path / "first.toml"
    experiment.write_text("\n".join(lines), encoding="utf-8")
    run_here("run", experiment)
    trained, predicted = sorted((tmp_path / "runs").iterdir(), reverse=True)
    assert (trained.name[:11], predicted.name[:17]) == ("train-tiny-", "predict-127.0.0.1")
    assert "held out 1" in json.loads((trained / "artifact.json").read_text())["inputs"]
    assert (predicted / "score" / "artifact.json").is_file()
    assert not find_secrets(tmp_path / "runs")
    assert not find_secrets(tmp_path / "cache")


def find_secrets(folder: Path) -> list[Path]:
    """The files that hold, or whose names hold, a credential of an address."""
    secrets = (b"geheim123", b"abcdef123")
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [file for file in files if any(secret in os.fsencode(file) + file.read_bytes() for secret in secrets)]


def test_an_audit_compares_sets_by_their_addresses(
    shards: Path, server: ShardServer, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for source in (shards, server.url):
        run_here("audit", "--shards", source, "--format", "json")
        printed.append(json.loads(capsys.readouterr().out))
    assert len(printed[0]["splits"]) == len(printed[1]["splits"]) > 1
    assert printed[0]["leaks"] == printed[1]["leaks"]


def list_readers(source: str | Path, predicted: Path, home: Path) -> list[list[str | Path]]:
    """A command line of each command that reads the shards of one split, or all of them; what it writes is in home."""
    split = ("--shards", source, "--split", "val")
    return [
        ["score", predicted, *split, "--out", home / "score", "--format", "json", "--bootstrap", "9"],
        ["compare", predicted, predicted, *split, "--format", "json", "--bootstrap", "9"],
        ["sweep", predicted, *split, "--vary", "nms=true,false", "--format", "csv"],
        ["report", predicted, *split, "--out", home / "report", "--limit", "1", "--bootstrap", "0", "--workers", "0"],
        ["convert", predicted, *split, "--out", home / "coco"],
        ["convert", *split, "--out", home / "annotations"],
        ["convert", home / "coco" / "boxes.json", *split, "--out", home / "found.jsonl"],
        ["convert", "--shards", source, "--to", "jsonl", "--out", home / "lines"],
        ["convert", "--shards", source, "--to", "grefcoco", "--out", home / "published"],
    ]


def test_every_command_that_reads_shards_reads_those_of_an_address(
    shards: Path, local_run: Path, server: ShardServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server.url.replace("//", "//anna:geheim123@") + "?token=abcdef123"
    predicted = tmp_path / "predicted"
    run_here("predict", "--checkpoint", local_run, "--shards", shards, "--split", "val", "--out", predicted)
    printed, written = [], []
    for home, source in ((tmp_path / "local", shards), (tmp_path / "remote", url)):
        capsys.readouterr()
        for words in list_readers(source, predicted, home):
            run_here(*words)
        output = capsys.readouterr()
        assert "geheim123" not in output.out + output.err
        printed.append(output.out.replace(str(home), "HOME"))
        written.append({str(file.relative_to(home)): file.read_bytes() for file in home.rglob("*") if file.is_file()})
    assert printed[0] == printed[1]
    assert written[0] == written[1]
    assert len(written[0]) > 10
    assert not find_secrets(tmp_path)
