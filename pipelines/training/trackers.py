"""Experiment trackers (TensorBoard, Weights & Biases, MLflow, trackio), through those of Accelerate.

They get what `log.jsonl` gets. A tracker that fails while the training runs is given up with one line: the training
goes on.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker

from pipelines.config.overrides import to_mapping
from pipelines.config.settings import Tracker, TrainSettings
from pipelines.config.toml import format_toml
from shards.errors import DataError, SettingsError, first_line
from shards.files import read_json, write_json
from shards.progress import log

PROJECT = "igvg"
"""The name of the project (W&B, trackio) or experiment (MLflow)."""
RUN_FILE = "trackers.json"
"""In the state folder: under which ids the trackers know the run, so that a resumed training goes on in it."""


def require_trackers(names: Sequence[Tracker]) -> None:
    """Make sure that the packages of trackers are installed; nothing is imported.

    Raises:
        SettingsError: one is missing.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise SettingsError(f"log_with {name}: the package is not installed; pip install {name}")


class RunTrackers:
    """The started trackers of one run; none on all ranks but 0."""

    def __init__(self) -> None:
        self._trackers: list[GeneralTracker] = []

    def add(self, tracker: GeneralTracker) -> None:
        """Add a started tracker."""
        self._trackers.append(tracker)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Hand values to every tracker (`losses/total`, `validation/SET/gIoU`, …); one that raises is given up."""
        for tracker in [*self._trackers]:
            with self._giving_up(tracker, step):
                tracker.log(_name_for(tracker.name, values), step=step)

    def write_settings(self, settings: TrainSettings) -> None:
        """Hand the settings of the training to every tracker, as configuration or, to TensorBoard, as text."""
        values = {name: _to_plain(value) for name, value in flatten(to_mapping(settings)).items()}
        for tracker in [*self._trackers]:
            with self._giving_up(tracker, 0):
                if tracker.name == "tensorboard":
                    tracker.log({"settings": f"```toml\n{format_toml(to_mapping(settings))}```"}, step=0)
                else:
                    tracker.store_init_configuration(values)

    @contextlib.contextmanager
    def _giving_up(self, tracker: GeneralTracker, step: int) -> Iterator[None]:
        # A package of others may raise anything; a training of days must not end for it.
        try:
            yield
        except Exception as error:
            self._trackers.remove(tracker)
            log(f"{tracker.name} failed at step {step} and gets no more values: {first_line(error)}")

    def finish(self) -> None:
        """Write what is left, and end the run."""
        for tracker in self._trackers:
            try:
                tracker.finish()
            except Exception as error:
                log(f"{tracker.name} could not end its run: {first_line(error)}")


@contextlib.contextmanager
def open_trackers(
    settings: TrainSettings, out: Path, state_folder: Path, step: int, accelerator: Accelerator
) -> Iterator[RunTrackers]:
    """The trackers of a training, ended with the block.

    Args:
        settings: `log_with` names the trackers.
        out: the folder of the training; TensorBoard writes into its folder `tensorboard`.
        state_folder: where the ids of the run are kept.
        step: from which the training goes on.
        accelerator: trackers are those of its main process.

    Raises:
        SettingsError: a tracker cannot be started.
    """
    if not settings.log_with or not accelerator.is_main_process:
        yield RunTrackers()
        return
    file = state_folder / RUN_FILE
    run = _read_run(file) or {"id": secrets.token_hex(8)}
    file.parent.mkdir(parents=True, exist_ok=True)
    trackers = RunTrackers()
    try:
        for name in dict.fromkeys(settings.log_with):
            started = _start_tracker(name, out, run, step, accelerator)
            trackers.add(started)
            if name == "mlflow":
                run["mlflow"] = started.tracker.info.run_id
            write_json(file, run)
        if not step:
            trackers.write_settings(settings)
        yield trackers
    finally:
        trackers.finish()


def flatten_line(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of the log under names with slashes, without nulls; scores stand under `validation`."""
    values = {"validation" if name == "scores" else name: value for name, value in line.items()}
    return {
        name: float(value)
        for name, value in flatten({name: value for name, value in values.items() if name != "step"}).items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with names joined by slashes."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _start_tracker(
    name: Tracker, out: Path, run: Mapping[str, str], step: int, accelerator: Accelerator
) -> GeneralTracker:
    title = f"{out.resolve().name}-{run['id']}"
    options: dict[str, dict[str, Any]] = {
        # Steps after the saved state are taken again: their values are replaced.
        "tensorboard": {"purge_step": step + 1 if step else None},
        "wandb": {"id": run["id"], "name": title, "resume": "allow"},
        "mlflow": {"run_id": run["mlflow"]} if "mlflow" in run else {"run_name": title},
        "trackio": {"name": title, "resume": "allow"},
    }
    accelerator.log_with = [name]
    accelerator.project_configuration.set_directories(str(out))
    # TensorBoard's folder is that of the project below the logging folder.
    project = name if name == "tensorboard" else PROJECT
    try:
        accelerator.init_trackers(project, init_kwargs={name: options[name]})
    except Exception as error:
        raise SettingsError(f"log_with {name}: cannot be started: {first_line(error)}") from error
    return accelerator.trackers[0]


def _name_for(tracker: str, values: Mapping[str, float]) -> dict[str, float]:
    """Values under the names that a tracker takes: MLflow refuses the sign in `Pr@0.7`."""
    return {re.sub(r"[^\w\-. :/]", "_", name) if tracker == "mlflow" else name: value for name, value in values.items()}


def _read_run(file: Path) -> dict[str, str]:
    """The ids of the run that a stopped training began; none if there are none."""
    if not file.exists():
        return {}
    try:
        found = read_json(file)
    except DataError:
        return {}
    known = isinstance(found, dict) and "id" in found and all(isinstance(value, str) for value in found.values())
    return found if known else {}


def _to_plain(value: Any) -> Any:
    """A value as all trackers take it."""
    return value if isinstance(value, str | int | float | bool) else str(value)
