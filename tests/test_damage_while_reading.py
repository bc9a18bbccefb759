"""Shards that are damaged, swapped or removed while a command reads them: named in one line, and never read as less."""

from __future__ import annotations

import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.training.folders import STATE_FOLDER
from tests.support.forked_commands import CommandServer
from tests.support.pipeline_runs import draw_published, prepare, train_arguments

STEPS = 40


def flip_bits(shards: Path) -> None:
    """One bit of the pixels of every image, which still decodes."""
    file = shards / "train" / "train-000000.tar"
    data = bytearray(file.read_bytes())
    with tarfile.open(file) as archive:
        for member in archive:
            if member.name.endswith(".jpg"):
                data[member.offset_data + member.size * 3 // 4] ^= 1
    overwrite(file, bytes(data))


def truncate(shards: Path) -> None:
    os.truncate(shards / "train" / "train-000000.tar", 1000)


def overwrite_by_another(shards: Path) -> None:
    overwrite(shards / "train" / "train-000000.tar", (shards / "val" / "val-000000.tar").read_bytes())


def remove_folder(shards: Path) -> None:
    shutil.rmtree(shards)


def swap_files(shards: Path) -> None:
    train, val = shards / "train" / "train-000000.tar", shards / "val" / "val-000000.tar"
    train.rename(shards / "other")
    val.rename(train)
    (shards / "other").rename(val)


def overwrite(file: Path, data: bytes) -> None:
    """Write into the file itself, which a reader may have open."""
    with file.open("r+b") as stream:
        stream.write(data)
        stream.truncate()


DAMAGES = {
    "flip": flip_bits,
    "truncate": truncate,
    "overwrite": overwrite_by_another,
    "remove": remove_folder,
    "swap": swap_files,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandServer]:
    with CommandServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def home(server: CommandServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and a training and a prediction that nothing disturbed."""
    home = tmp_path_factory.mktemp("damage")
    prepare(draw_published(home / "published", train_images=120, held_out_images=8), home / "shards")
    server.run(list_train(home / "shards", home / "run"))
    server.run(list_predict(home, home / "shards", home / "found"))
    return home


def list_train(shards: Path, out: Path) -> list[str]:
    settings = (f"max_steps={STEPS}", "epochs=100", "validation_epochs=100", "log_steps=1", "workers=1")
    return train_arguments(shards, out, *settings)


def list_predict(home: Path, shards: Path, out: Path) -> list[str]:
    split = ["--shards", str(shards), "--split", "train", "--out", str(out)]
    return ["predict", "--checkpoint", str(home / "run"), *split, "--set", "workers=0", "--set", "batch_size=4"]


def has_trained(out: Path) -> bool:
    log = out / "log.jsonl"
    return log.exists() and '"losses"' in log.read_text()


def has_predicted(out: Path) -> bool:
    return any((out / "raw").glob("chunk-*.npz")) or any(out.glob("parts/*"))


CASES = (
    *(("train", damage) for damage in ("flip", "truncate", "swap")),
    *(("predict", damage) for damage in ("flip", "overwrite", "remove")),
)


@pytest.mark.parametrize(("command", "damage"), CASES)
def test_what_is_damaged_while_it_is_read_is_named_and_the_work_goes_on_with_the_whole_data(
    command: str, damage: str, home: Path, server: CommandServer, tmp_path: Path
) -> None:
    shards, out = Path(shutil.copytree(home / "shards", tmp_path / "shards")), tmp_path / "out"
    words = list_train(shards, out) if command == "train" else list_predict(home, shards, out)
    has_begun: Callable[[Path], bool] = has_trained if command == "train" else has_predicted
    running = server.start(words)
    deadline = time.monotonic() + 60
    while not has_begun(out):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    DAMAGES[damage](shards)
    status, said = running.wait(), running.errors.read_text()
    if damage not in ("remove", "swap"):
        # Open files stay what they were; what is opened later is named.
        assert status == 1, said
    if status:
        lines = [line for line in said.splitlines() if not line.startswith(" ")]
        assert [line.startswith("Error: ") for line in lines].count(True) == 1, said
        assert "Traceback" not in said
        assert str(shards) in lines[-1]
        assert ".tar" in lines[-1]
        assert not (out / "artifact.json").exists()
        assert (out / "unfinished.json").is_file()
        if command == "train":
            assert any((out / STATE_FOLDER).iterdir())
        shutil.rmtree(shards, ignore_errors=True)
        shutil.copytree(home / "shards", shards)
        server.run(words)
    if command == "train":
        assert (out / "model.safetensors").read_bytes() == (home / "run" / "model.safetensors").read_bytes()
    else:
        assert (out / "predictions.jsonl").read_bytes() == (home / "found" / "predictions.jsonl").read_bytes()
