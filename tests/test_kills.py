"""Commands that are killed at random moments of their work: the next run completes it, with the same bytes.

Four kills of each command here; `make test-kills` makes 25.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked_commands import CommandServer, is_running
from tests.support.pipeline_runs import draw_published, train_arguments
from tests.support.training_snapshots import snapshot, snapshot_training

KILLS, MANY_KILLS = 4, 25
# A run continues what was killed before, and now and then it is left to end.
_MOST_ON_ONE_FOLDER = 6
_POLL_SECONDS = 0.001

Lines = Callable[[Path, Path], list[str]]


def list_prepare(home: Path, out: Path) -> list[str]:
    published = home / "published"
    return [
        "prepare", "grefcoco", "--annotations", str(published / "grefcoco"),
        "--images", str(published / "images" / "train2014"), "--out", str(out), "--workers", "2",
    ]  # fmt: skip


def list_prepare_with_cache(home: Path, out: Path) -> list[str]:
    return [*list_prepare(home, out), "--cache", "96"]


def list_prepare_own(home: Path, out: Path) -> list[str]:
    images = str(home / "published" / "images" / "train2014")
    return ["prepare", "jsonl", "--annotations", str(home / "own.jsonl"), "--images", images, "--out", str(out)]


def list_train(home: Path, out: Path) -> list[str]:
    settings = ("max_steps=30", "cache=true", "checkpoint_minutes=0.001", "validation_epochs=1", "log_steps=1")
    return train_arguments(home / "shards", out, *settings)


def split_options(home: Path) -> list[str]:
    return ["--shards", str(home / "shards"), "--split", "train"]


def list_predict(home: Path, out: Path) -> list[str]:
    checkpoint = ["--checkpoint", str(home / "run"), "--set", "workers=0"]
    return ["predict", *checkpoint, *split_options(home), "--out", str(out)]


def list_predict_images(home: Path, out: Path) -> list[str]:
    images = ["--image", str(home / "images"), "--text", "the red circle", "--text", "all squares"]
    return ["predict", "--checkpoint", str(home / "run"), *images, "--out", str(out), "--set", "workers=0"]


def list_score(home: Path, out: Path) -> list[str]:
    return ["score", str(home / "found"), *split_options(home), "--out", str(out)]


def list_report(home: Path, out: Path) -> list[str]:
    return ["report", str(home / "found"), *split_options(home), "--out", str(out), "--limit", "40"]


COMMANDS: dict[str, Lines] = {
    "prepare": list_prepare,
    "prepare --cache": list_prepare_with_cache,
    "prepare jsonl": list_prepare_own,
    "train": list_train,
    "predict": list_predict,
    "predict images": list_predict_images,
    "score": list_score,
    "report": list_report,
}
IN_EVERY_RUN = ("prepare", "prepare --cache", "train", "predict", "score")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandServer]:
    with CommandServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def home(server: CommandServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every command works on."""
    home = tmp_path_factory.mktemp("kills")
    draw_published(home / "published", train_images=240)
    images = sorted((home / "published" / "images" / "train2014").iterdir())
    lines = [{"image": file.name, "text": "all of it", "targets": [{"box": [1, 1, 20, 20]}]} for file in images]
    (home / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (home / "images").mkdir()
    for file in images[:12]:
        shutil.copy(file, home / "images")
    server.run(list_prepare(home, home / "shards"))
    server.run(train_arguments(home / "shards", home / "run", "max_steps=2"))
    server.run(list_predict(home, home / "found"))
    return home


def snapshot_all(home: Path, folder: Path) -> dict[str, Any]:
    """What a training leaves, and the cache of its images."""
    return {**snapshot_training(folder), "cache": snapshot(home / "shards" / "cache")}


def wait_for_work(out: Path, running: Callable[[], bool]) -> None:
    """Wait until a command has locked its folder, or, where everything but an image cache is done, works on that."""
    locks = [out.parent / f".{out.name}.lock", out / "cache"]
    while not any(lock.exists() for lock in locks) and running():
        time.sleep(_POLL_SECONDS)


def kill_repeatedly(server: CommandServer, home: Path, folder: Path, lines: Lines, kills: int) -> list[float]:
    """Kill a command at random moments of its work; returns the moments, in shares of an undisturbed run."""
    take = partial(snapshot_all, home) if lines is list_train else snapshot
    whole, out = folder / "whole" / "out", folder / "killed" / "out"
    for each in (whole, out):
        each.parent.mkdir()
    command = server.start(lines(home, whole))
    wait_for_work(whole, partial(is_running, command.process))
    began = time.monotonic()
    assert command.wait() == 0, command.errors.read_text()
    seconds, expected = time.monotonic() - began, take(whole.parent)
    shutil.rmtree(home / "shards" / "cache", ignore_errors=True)
    assert "out/artifact.json" in expected
    moments: list[float] = []
    generator = random.Random(f"{folder.name} {kills}")
    tries, on_this_folder = 0, 0
    while len(moments) < kills:
        tries += 1
        assert tries < 10 * kills, "the command ends before it can be killed"
        command = server.start(lines(home, out))
        wait_for_work(out, partial(is_running, command.process))
        began, share = time.monotonic(), generator.random()
        while time.monotonic() - began < share * seconds and is_running(command.process):
            time.sleep(_POLL_SECONDS)
        killed = command.kill()
        if killed:
            moments.append(share)
            on_this_folder += 1
        else:
            assert command.status == 0, command.errors.read_text()
        if not killed or on_this_folder >= generator.randint(1, _MOST_ON_ONE_FOLDER) or len(moments) == kills:
            server.run(lines(home, out))
            found = take(out.parent)
            assert sorted(found) == sorted(expected)
            assert found == expected
            shutil.rmtree(out)
            shutil.rmtree(home / "shards" / "cache", ignore_errors=True)
            on_this_folder = 0
    return moments


@pytest.mark.parametrize("name", IN_EVERY_RUN)
def test_a_command_that_is_killed_is_completed_by_the_next_run(
    name: str, server: CommandServer, home: Path, tmp_path: Path
) -> None:
    kill_repeatedly(server, home, tmp_path, COMMANDS[name], KILLS)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_killed_many_times_is_completed_by_the_next_run(
    name: str, server: CommandServer, home: Path, tmp_path: Path
) -> None:
    kills = int(os.environ.get("KILLS", MANY_KILLS))
    moments = kill_repeatedly(server, home, tmp_path, COMMANDS[name], kills)
    print(f"{name}: killed at", " ".join(f"{share:.2f}" for share in sorted(moments)))  # noqa: T201, the result
