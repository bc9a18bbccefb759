"""Commands give the same results on shards of a server, also of one that fails, as on those of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from shards import remote_folders, remote_prefetch
from tests.support.object_stores import serve_s3
from tests.support.pipeline_runs import draw_published, igvg, only_error, prepare, run_here, train_arguments
from tests.support.shard_server import ShardServer, serve_folder

STEPS = ("max_steps=4", "epochs=1", "workers=2")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    return prepare(draw_published(home / "published"), home / "shards")


@pytest.fixture
def server(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShardServer]:
    monkeypatch.setenv("IGVG_CACHE", str(tmp_path / "cache"))
    remote_folders._folders.clear()
    remote_folders._fetched.clear()
    with serve_folder(shards) as running:
        yield running
    remote_prefetch.cancel()


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
    written = "".join(file.read_text() for file in tmp_path.rglob("*.json*") if file.is_file())
    for secret in ("geheim123", "abcdef123"):
        assert secret not in result.stderr + result.stdout + written


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_what_reads_folders_alone_says_so_of_an_address(command: str) -> None:
    result = igvg(command, "https://example.org/shards?token=abcdef123")
    assert result.returncode == 2
    assert "https://example.org/shards?*** is an address" in " ".join(result.stderr.replace("│", " ").split())
    assert "abcdef123" not in result.stderr


def test_an_experiment_names_shards_by_their_addresses(server: ShardServer, tmp_path: Path) -> None:
    url = server.url.replace("//", "//anna:geheim123@")
    experiment = tmp_path / "first.toml"
    experiment.write_text(
        f'out = "runs"\n[predict]\ncheckpoint = "shapes"\nsplits = ["{url}/val"]\n[score]\nbootstrap = 0\n',
        encoding="utf-8",
    )
    run_here("run", experiment)
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("predict-127.0.0.1")
    assert (folder / "score" / "artifact.json").is_file()
    assert "geheim123" not in "".join(
        str(file) + file.read_text() for file in tmp_path.rglob("*.json*") if file.is_file()
    )


def test_an_audit_compares_sets_by_their_addresses(
    shards: Path, server: ShardServer, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for source in (shards, server.url):
        run_here("audit", "--shards", source, "--format", "json")
        printed.append(json.loads(capsys.readouterr().out))
    assert len(printed[0]["splits"]) == len(printed[1]["splits"]) > 1
    assert printed[0]["leaks"] == printed[1]["leaks"]
