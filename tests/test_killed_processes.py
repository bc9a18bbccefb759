"""Trainings of two processes that are killed, both or one of them: the same command ends as if nothing had happened.

A process that is left alone ends, in a line. Three kills here of trainings whose processes hold the whole network, and
of those that split it; `make test-kills` makes 25.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.training.sharded_state import TensorParts, join_parts
from pipelines.training.state_files import read_state
from tests.support.drawn_shards import write_noise
from tests.support.forked_commands import ForkedCommand, is_running
from tests.support.forked_ranks import RankServer
from tests.support.pipeline_runs import train_arguments
from tests.support.training_snapshots import list_values, snapshot_training
from tests.test_killed_trainings import SETTINGS as LONG
from tests.test_killed_trainings import count_steps

STEPS = 9
SETTINGS = (*LONG, f"max_steps={STEPS}")
KINDS: dict[str, dict[str, str]] = {"whole": {}, "split": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}}
BOTH = (0, 1)
VICTIMS: tuple[Sequence[int], ...] = (BOTH, (0,), (1,))
MANY_KILLS, MOST_ON_ONE_FOLDER = 25, 5
# A step with its state takes less.
LONGEST_DELAY = 0.1
SURVIVAL = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankServer]:
    with RankServer(tmp_path_factory.mktemp("servers")) as server:
        yield server


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("killed") / "noise", 3)


def join_state(values: Any) -> Any:
    """A state with whole tensors."""
    if isinstance(values, TensorParts):
        return join_parts(values)
    return {key: join_state(value) for key, value in values.items()} if isinstance(values, dict) else values


def snapshot(out: Path) -> dict[str, Any]:
    """What a training leaves; of its states the values of the last one, as their number depends on the clock."""
    found = {name: value for name, value in snapshot_training(out).items() if not name.startswith("state")}
    record = json.loads(found["artifact.json"]) if isinstance(found["artifact.json"], bytes) else found["artifact.json"]
    for kind in ("files", "digests"):
        record[kind] = {name: value for name, value in record[kind].items() if not name.startswith("state/")}
    return {**found, "artifact.json": record, "state": list_values(join_state(read_state(out / "state")))}


def read_step(out: Path) -> int:
    """The step of the saved state; 0 without one."""
    state = read_state(out / "state")
    return state["step"] if state else 0


def count_starts(out: Path) -> int:
    """How often processes that had met began or continued a training."""
    log = out / "log.jsonl"
    return log.read_text().count('"start"') if log.exists() else 0


def kill(commands: Sequence[ForkedCommand], victims: Sequence[int]) -> bool:
    """Kill some of the processes; whether they had not ended before. Those that are left end with an error."""
    killed = [commands[rank].kill() for rank in victims]
    left = [command for rank, command in enumerate(commands) if rank not in victims]
    for command in left:
        ended = time.monotonic() + SURVIVAL
        while is_running(command.process):
            assert time.monotonic() < ended, "a process that is left alone does not end"
            time.sleep(0.01)
        status, said = command.wait(), command.errors.read_text()
        errors = [line for line in said.splitlines() if line.startswith("Error:")]
        if all(killed) and status:
            assert status == 1, said
            assert len(errors) == 1, said
            assert "Traceback" not in said
            assert "another of the 2 processes ended" in errors[0]
    return all(killed)


def kill_repeatedly(
    server: RankServer, shards: Path, home: Path, environment: Mapping[str, str], kills: int, generator: random.Random
) -> list[str]:
    """Kill a training at random moments, and let it end; returns who was killed, and after which step."""
    words = train_arguments(shards, home / "undisturbed", *SETTINGS)
    server.run(words, **environment)
    expected = snapshot(home / "undisturbed")
    out, killed, on_this_folder = home / "run", list[str](), 0
    words = train_arguments(shards, out, *SETTINGS)
    while len(killed) < kills:
        victims, saved = VICTIMS[len(killed) % len(VICTIMS)], read_step(out)
        step = generator.randint(min(saved + 1, STEPS), min(saved + 4, STEPS))
        starts, commands = count_starts(out), server.start(words, **environment)
        # A process that waits for one which died before they met is ended by torchrun alone.
        while (count_starts(out) == starts or count_steps(out) < step) and all(
            is_running(command.process) for command in commands
        ):
            time.sleep(0.001)
        time.sleep(generator.uniform(0, LONGEST_DELAY))
        if kill(commands, victims):
            killed.append(f"{'both' if victims == BOTH else victims[0]} {read_step(out)}")
            on_this_folder += 1
        if read_step(out) == STEPS or on_this_folder == MOST_ON_ONE_FOLDER or len(killed) == kills:
            server.run(words, **environment)
            found = snapshot(out)
            assert sorted(found) == sorted(expected)
            assert [name for name in found if found[name] != expected[name]] == [], killed
            shutil.rmtree(out)
            on_this_folder = 0
    return killed


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_of_which_some_are_killed_end_with_the_bytes_of_an_undisturbed_training(
    kind: str, server: RankServer, shards: Path, tmp_path: Path
) -> None:
    kill_repeatedly(server, shards, tmp_path, KINDS[kind], len(VICTIMS), random.Random(kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_that_are_killed_many_times_end_with_the_bytes_of_an_undisturbed_training(
    kind: str, server: RankServer, shards: Path, tmp_path: Path
) -> None:
    kills = int(os.environ.get("KILLS", MANY_KILLS))
    killed = kill_repeatedly(server, shards, tmp_path, KINDS[kind], kills, random.Random())
    print(f"{kind}: killed, and the saved step:", ", ".join(killed))  # noqa: T201, the result
