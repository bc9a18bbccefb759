"""Trainings that are killed in a step, while a state or the checkpoint is written, and while validating.

The same command then ends with the bytes of an undisturbed training. One kill of each kind here; `make test-kills`
makes 25.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.training.state_files import read_state
from tests.support.drawn_shards import write_noise
from tests.support.forked_commands import CommandServer, is_running
from tests.support.pipeline_runs import train_arguments
from tests.support.training_snapshots import snapshot_training

MANY_KILLS, TRIES = 25, 25
# Three steps are an epoch.
STEPS, EPOCH = 15, 3
# Everything that chance decides is at work: stochastic depth of two layers of the encoder, and dropout.
SETTINGS = (
    f"max_steps={STEPS}", "epochs=99", 'splits=["val"]', "log_steps=1", "checkpoint_minutes=0.0002",
    "validation_epochs=1", "validation_limit=0", "precision=fp32", "model.encoder_layers=2", "model.drop_path=0.3",
    "model.dropout=0.1", "ema_decay=0.9", "best_metric=cIoU", "postprocess.score_threshold=0.1", "keep_last_state=true",
)  # fmt: skip
State = dict[str, Any]


def count_steps(out: Path) -> int:
    """The steps in the log of a training; 0 if its last line is about something else."""
    try:
        lines = (out / "log.jsonl").read_text().splitlines()
        return int(json.loads(lines[-1])["step"]) if lines and '"losses"' in lines[-1] else 0
    except (FileNotFoundError, ValueError):
        return 0


def has_temporary(folder: Path, name: str) -> bool:
    return any(folder.glob(f".{name}*.tmp"))


def changed_after(file: Path, other: Path) -> bool:
    try:
        return file.stat().st_mtime_ns > other.stat().st_mtime_ns
    except FileNotFoundError:
        # For a moment, while a new state takes the place of the last one, there is none of this name.
        return False


def is_in_a_step(out: Path, first: int) -> bool:
    return count_steps(out) >= first and (out / "state" / "state.pt").exists()


def is_saving(out: Path, first: int) -> bool:
    return has_temporary(out / "state", "state.pt") and count_steps(out) >= first


def is_validating(out: Path, first: int) -> bool:
    step = count_steps(out)
    return step >= first and step % EPOCH == 0 and changed_after(out / "state" / "state.pt", out / "log.jsonl")


def is_validating_last(out: Path, first: int) -> bool:
    return is_validating(out, max(first, STEPS))


def writes_checkpoint(out: Path, first: int) -> bool:
    return has_temporary(out, "model.safetensors")


READY: dict[str, Callable[[Path, int], bool]] = {
    "step": is_in_a_step, "saving": is_saving, "validating": is_validating, "validating last": is_validating_last,
    "checkpoint": writes_checkpoint,
}  # fmt: skip
# What shows after the kill that it came when it was meant to.
HIT: dict[str, Callable[[Path, State], bool]] = {
    "step": lambda out, state: not state["due"] or count_steps(out) > state["step"],
    "saving": lambda out, state: has_temporary(out / "state", "state.pt"),
    "validating": lambda out, state: state["due"] and state["scored"] < state["step"] == count_steps(out),
    "validating last": lambda out, state: state["due"] and state["scored"] < state["step"] == STEPS,
    "checkpoint": lambda out, state: has_temporary(out, "model.safetensors"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandServer]:
    with CommandServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("killed") / "noise", 3)


@pytest.fixture(scope="module")
def undisturbed(server: CommandServer, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a training leaves that nothing disturbed."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    server.run(train_arguments(shards, out, *SETTINGS))
    found = snapshot_training(out)
    assert "state/state.pt" in found
    assert [line["step"] for line in found["log.jsonl"] if "losses" in line] == list(range(1, STEPS + 1))
    assert len([line for line in found["log.jsonl"] if "scores" in line]) == STEPS // EPOCH
    return found


def kill_once(server: CommandServer, shards: Path, out: Path, moment: str, first: int) -> bool:
    """Kill a training at a moment from step `first` on; whether it was hit, and something was saved."""
    command = server.start(train_arguments(shards, out, *SETTINGS))
    while not READY[moment](out, first) and is_running(command.process):
        pass
    if not command.kill():
        return False
    state = read_state(out / "state")
    return state is not None and state["step"] > 0 and HIT[moment](out, state)


def kill_and_continue(
    server: CommandServer, shards: Path, folder: Path, moment: str, generator: random.Random
) -> tuple[int, dict[str, Any]]:
    """The saved step of a training that was killed at a moment, and what it leaves after the same command again."""
    out = folder / "run"
    for _ in range(TRIES):
        shutil.rmtree(out, ignore_errors=True)
        if kill_once(server, shards, out, moment, generator.randint(1, STEPS - 3)):
            break
    else:
        pytest.fail(f"no kill of {TRIES} came at the moment {moment}")
    state = read_state(out / "state")
    assert state is not None
    server.run(train_arguments(shards, out, *SETTINGS))
    return state["step"], snapshot_training(out)


@pytest.mark.parametrize("moment", READY)
def test_a_training_that_is_killed_ends_with_the_bytes_of_an_undisturbed_one(
    moment: str, server: CommandServer, shards: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    _, found = kill_and_continue(server, shards, tmp_path, moment, random.Random(moment))
    assert sorted(found) == sorted(undisturbed)
    assert [name for name in found if found[name] != undisturbed[name]] == []


@pytest.mark.slow
def test_a_training_that_is_killed_many_times_ends_with_the_bytes_of_an_undisturbed_one(
    server: CommandServer, shards: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    generator, killed = random.Random(), []
    for _, moment in zip(range(int(os.environ.get("KILLS", MANY_KILLS))), itertools.cycle(READY), strict=False):
        step, found = kill_and_continue(server, shards, tmp_path, moment, generator)
        assert sorted(found) == sorted(undisturbed), (moment, step)
        assert [name for name in found if found[name] != undisturbed[name]] == [], (moment, step)
        killed.append(f"{moment} {step}")
    print("killed, and the saved step:", ", ".join(killed))  # noqa: T201, the result
