"""A training that was stopped goes on where it was, and ends with the weights of an undisturbed one."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines.config.settings import TrainSettings
from pipelines.stages import train
from pipelines.training.state_files import read_state
from shards.errors import ArtifactError, CheckpointError
from shards.progress import set_sink
from tests.support.small_training import small_settings, write_set
from tests.support.training_snapshots import list_values

STEPS, LAST_SAVED = 7, 4
MEASURED = {"expressions_per_second", "data_wait", "peak_memory_mb"}


class StoppedError(Exception):
    """As if the process had been killed between two steps."""


def stop_after(step: int) -> Callable[[int, int, str], None]:
    """A progress report that ends the process in the step after `step`, before its state is saved."""

    def report(done: int, total: int, remark: str) -> None:
        if done == step + 1:
            raise StoppedError

    return report


def choose(**changes: Any) -> TrainSettings:
    """More than two epochs of three steps each, scored in between; the state is saved after every step."""
    return small_settings(max_steps=STEPS, epochs=5, checkpoint_minutes=0.0, **changes)


def list_different(first: Path, second: Path) -> list[str]:
    """What differs between two trainings: tensors of the best checkpoint, values of the last state."""
    one, two = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert one.keys() == two.keys()
    different = [name for name in one if not torch.equal(one[name], two[name])]
    before, after = (list_values(read_state(folder / "state")) for folder in (first, second))
    assert before.keys() == after.keys()
    assert before[".step"] == STEPS
    return different + [name for name in before if before[name] != after[name]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that nothing disturbed."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train.run(choose(keep_last_state=True), [shards], out)
    return out


@pytest.fixture(scope="module")
def stopped(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that ended in its fifth step of seven, and was then continued."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(StoppedError), set_sink(progress=stop_after(LAST_SAVED)):
        train.run(choose(), [shards], out)
    state = read_state(out / "state")
    assert state is not None
    assert 0 < state["step"] == LAST_SAVED < STEPS
    assert not (out / "artifact.json").exists()
    train.run(choose(keep_last_state=True), [shards], out)
    return out


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of losses and of scores in a log, without what depends on the machine."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name not in MEASURED}
        for line in lines
        if "losses" in line or "scores" in line
    ]


def test_a_stopped_training_ends_with_the_weights_of_an_undisturbed_one(undisturbed: Path, stopped: Path) -> None:
    assert list_different(undisturbed, stopped) == []


def test_its_log_holds_every_step_once_with_the_losses_and_scores_of_an_undisturbed_one(
    undisturbed: Path, stopped: Path
) -> None:
    lines = read_log(stopped)
    assert lines == read_log(undisturbed)
    assert [line["step"] for line in lines if "losses" in line] == list(range(1, STEPS + 1))
    assert [line["step"] for line in lines if "scores" in line] == [3, 6, 7]


def test_its_record_counts_all_steps_and_knows_the_best_score(undisturbed: Path, stopped: Path) -> None:
    one, two = (json.loads((folder / "artifact.json").read_text())["counts"] for folder in (undisturbed, stopped))
    assert one == two
    assert two["steps"] == STEPS
    values = [line["scores"]["shards"]["gIoU"] for line in read_log(stopped) if "scores" in line]
    assert two["best"] == max(values) > 0


def test_a_finished_training_leaves_no_state_and_no_weights_of_an_earlier_divergence(
    shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(StoppedError), set_sink(progress=stop_after(LAST_SAVED)):
        train.run(choose(), [shards], out)
    (out / "last-good").mkdir()
    (out / "last-good" / "model.safetensors").touch()
    train.run(choose(), [shards], out)
    assert not (out / "last-good").exists()
    assert not (out / "state").exists()
    assert not any("state" in name for name in json.loads((out / "artifact.json").read_text())["files"])


def test_a_training_that_is_told_to_stop_saves_the_step_it_has_done(shards: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, remark: str) -> None:
        if done == 2:
            # Not SIGINT, which is ignored where these tests run in the background of a script.
            signal.raise_signal(signal.SIGTERM)

    out = tmp_path / "run"
    settings = small_settings(max_steps=STEPS, epochs=5, checkpoint_minutes=1000.0)
    with pytest.raises(KeyboardInterrupt), set_sink(progress=interrupt):
        train.run(settings, [shards], out)
    state = read_state(out / "state")
    assert state is not None
    assert state["step"] == 2


def test_a_training_that_is_stopped_while_it_is_scored_continues_with_the_scoring(
    shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    def interrupt(done: int, total: int, remark: str) -> None:
        if remark == "validation":
            signal.raise_signal(signal.SIGTERM)

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt), set_sink(progress=interrupt):
        train.run(choose(), [shards], out)
    state = read_state(out / "state")
    assert state is not None
    assert (state["step"], state["scored"]) == (3, 0)
    train.run(choose(keep_last_state=True), [shards], out)
    assert read_log(out) == read_log(undisturbed)
    assert list_different(undisturbed, out) == []


def test_the_state_is_saved_after_a_scoring_and_not_after_every_step(shards: Path, tmp_path: Path) -> None:
    settings = small_settings(max_steps=STEPS, epochs=5, checkpoint_minutes=1000.0)
    with pytest.raises(StoppedError), set_sink(progress=stop_after(2)):
        train.run(settings, [shards], tmp_path / "run")
    assert read_state(tmp_path / "run" / "state") is None
    with pytest.raises(StoppedError), set_sink(progress=stop_after(4)):
        train.run(settings, [shards], tmp_path / "run")
    state = read_state(tmp_path / "run" / "state")
    assert state is not None
    assert state["step"] == 3


def test_a_forced_training_of_other_settings_starts_from_its_own_beginning(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(StoppedError), set_sink(progress=stop_after(LAST_SAVED)):
        train.run(choose(), [shards], out)
    other = choose(seed=1)
    with pytest.raises(ArtifactError, match="unfinished work of other inputs or settings"):
        train.run(other, [shards], out)
    train.run(other, [shards], out, force=True)
    assert [line["step"] for line in read_log(out) if "losses" in line] == list(range(1, STEPS + 1))
    train.run(other, [shards], tmp_path / "fresh")
    assert read_log(out) == read_log(tmp_path / "fresh")


def test_a_state_that_another_training_saved_is_refused(shards: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "run", tmp_path / "other"
    for folder, settings in ((out, choose()), (other, choose(seed=1))):
        with pytest.raises(StoppedError), set_sink(progress=stop_after(2)):
            train.run(settings, [shards], folder)
    shutil.copy(other / "state" / "state.pt", out / "state" / "state.pt")
    with pytest.raises(CheckpointError, match=r"a training of other inputs or settings saved it; delete it"):
        train.run(choose(), [shards], out)


def test_a_state_that_cannot_be_used_is_deleted_as_its_message_says_and_the_same_command_begins_again(
    shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(StoppedError), set_sink(progress=stop_after(LAST_SAVED)):
        train.run(choose(keep_states=1), [shards], out)
    file = out / "state" / "state.pt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="; delete it, and the same command begins the training again"):
        train.run(choose(), [shards], out)
    file.unlink()
    train.run(choose(), [shards], out)
    assert read_log(out) == read_log(undisturbed)
