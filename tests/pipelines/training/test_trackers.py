"""Experiment trackers: they get what the log gets."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import GeneralTracker

from pipelines.training.state import save_state
from pipelines.training.trackers import RunTrackers, flatten_line, require_trackers
from pipelines.training.trainer import train
from shards.errors import SettingsError
from shards.progress import set_sink
from tests.support.small_training import open_small, small_settings, write_set

accumulation = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("tracked"))


class BrokenTracker(GeneralTracker):
    """A tracker of others whose server is gone after the first value."""

    name = "broken"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int | None] = []

    @property
    def tracker(self) -> None:
        return None

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.steps.append(step)
        if len(self.steps) > 1:
            raise ConnectionError("the server is gone\nwith details")


def read_scalars(out: Path) -> dict[str, list[tuple[int, float]]]:
    events = accumulation.EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def read_log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def collect(lines: list[dict[str, Any]], key: str, name: str) -> list[tuple[int, float]]:
    return [(line["step"], pytest.approx(line[key][name], rel=1e-6)) for line in lines if key in line]


def test_tensorboard_gets_every_value_of_the_log_at_its_step(shards: Path, tmp_path: Path) -> None:
    train(open_small(shards, tmp_path, max_steps=4, epochs=9, log_with=("tensorboard",)))
    scalars, lines = read_scalars(tmp_path), read_log(tmp_path)
    assert scalars["losses/total"] == collect(lines, "losses", "total")
    assert scalars["learning_rates/head"] == collect(lines, "learning_rates", "head")
    assert len(scalars["losses/total"]) == 4
    assert {"gradient_norm", "expressions_per_second", "data_wait", "peak_memory_mb", "epoch"} <= scalars.keys()


def test_validation_scores_go_to_the_tracker_under_the_name_of_their_set(shards: Path, tmp_path: Path) -> None:
    train(open_small(shards, tmp_path, max_steps=2, epochs=9, validation_split="val", log_with=("tensorboard",)))
    (scores,) = (line["scores"] for line in read_log(tmp_path) if "scores" in line)
    ((folder, metrics),) = scores.items()
    found = read_scalars(tmp_path)
    measured = {name: value for name, value in metrics.items() if value is not None}
    assert measured
    for name, value in measured.items():
        assert found[f"validation/{folder}/{name}"] == [(2, pytest.approx(value, rel=1e-6))]


def test_values_of_steps_that_are_taken_again_are_replaced(shards: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"epochs": 9, "log_with": ("tensorboard",)}
    begun = open_small(shards, tmp_path, max_steps=2, **changes)
    train(begun)
    # The state of step 1, as if the process had been killed at step 2 before its state was written.
    begun.step = 1
    save_state(begun)
    train(open_small(shards, tmp_path, max_steps=4, **changes))
    assert [step for step, _ in read_scalars(tmp_path)["losses/total"]] == [1, 2, 3, 4]


def test_a_tracker_that_fails_is_given_up_and_the_others_go_on() -> None:
    broken, whole, lines = BrokenTracker(), _KeepingTracker(), list[str]()
    trackers = RunTrackers()
    trackers.add(broken)
    trackers.add(whole)
    with set_sink(log=lines.append):
        for step in (1, 2, 3):
            trackers.write(step, {"losses/total": 1.0 / step})
    assert broken.steps == [1, 2]
    assert whole.values == [{"losses/total": 1.0}, {"losses/total": 0.5}, {"losses/total": 1.0 / 3}]
    assert lines == ["broken failed at step 2 and gets no more values: the server is gone"]


def test_a_tracker_that_fails_with_the_settings_is_given_up_and_the_others_get_them() -> None:
    trackers, broken, kept = RunTrackers(), BrokenTracker(), _KeepingTracker()
    broken.store_init_configuration = None  # type: ignore[method-assign, assignment]
    lines: list[str] = []
    trackers.add(broken)
    trackers.add(kept)
    with set_sink(log=lines.append):
        trackers.write_settings(small_settings())
        trackers.write(10, {"losses/total": 1.0})
    assert lines == ["broken failed at step 0 and gets no more values: 'NoneType' object is not callable"]
    assert (broken.steps, kept.values) == ([], [{"losses/total": 1.0}])


def test_numbers_of_a_line_have_names_with_slashes_and_nulls_are_left_out() -> None:
    line: Mapping[str, Any] = {
        "step": 3,
        "epoch": 0.5,
        "gradient_norm": None,
        "losses": {"total": 1.5, "boxes": None},
        "scores": {"grefcoco": {"gIoU": 40, "cIoU": None}},
        "start": {"precision": "fp32"},
    }
    assert flatten_line(line) == {"epoch": 0.5, "losses/total": 1.5, "validation/grefcoco/gIoU": 40.0}


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_tracker_that_is_not_installed_is_refused_before_any_work(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="log_with wandb: the package is not installed; pip install wandb"):
        require_trackers(["tensorboard", "wandb"])
    command = [sys.executable, "-m", "igvg_cli", "train", "--shards", str(shards), "--out", str(tmp_path / "run")]
    done = subprocess.run([*command, "--log-with", "wandb", "--set", 'splits=["val"]'], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: log_with wandb: the package is not installed")
    assert not (tmp_path / "run").exists()


def test_the_command_line_takes_several_trackers_and_refuses_unknown_ones() -> None:
    command = [sys.executable, "-m", "igvg_cli", "train", "--show-settings", "--log-with", "tensorboard", "--log-with"]
    done = subprocess.run([*command, "mlflow"], capture_output=True, text=True)
    assert 'log_with = ["tensorboard", "mlflow"]' in done.stdout
    refused = subprocess.run([*command, "tensorbord"], capture_output=True, text=True)
    assert refused.returncode == 1
    assert "'tensorboard', 'wandb', 'mlflow' or 'trackio'" in refused.stderr


class _KeepingTracker(GeneralTracker):
    """A tracker that keeps what it gets."""

    name = "keeping"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.values: list[dict[str, Any]] = []

    @property
    def tracker(self) -> None:
        return None

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.values.append(values)
