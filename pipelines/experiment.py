"""`igvg run`: the stages that one TOML file names, each in a folder whose name carries the key of what it is made from.

```toml
out = "runs/first"                      # paths are relative to this file

[prepare.grefcoco]                      # a name of your choice; several are fine
dataset = "grefcoco"                    # if other than the name
annotations = "data/grefcoco"
images = ["data/train2014"]

[train]
shards = ["grefcoco"]                   # names from above; all of them if left out
preset = "tiny"
epochs = 3                              # any setting of igvg train

[predict]
splits = ["grefcoco/val"]               # name/split; any setting of igvg predict may follow

[score]
resolution = 0                          # any setting of igvg score
```
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipelines import predict, prepare, score, train
from pipelines.artifact import compute_fingerprint
from pipelines.overrides import from_mapping, overlay_settings, read_toml
from pipelines.settings import (
    PredictSettings,
    PrepareSettings,
    ScoreSettings,
    SettingsError,
    TrainSettings,
    train_preset,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipelines.artifact import Artifact

Progress = Callable[[int, int, str], None]
Note = Callable[[str], None]

_KEY_LENGTH = 8
_TABLES = ("out", "prepare", "train", "predict", "score")


@dataclass(frozen=True, kw_only=True)
class PrepareStep:
    """One data set of an experiment."""

    settings: PrepareSettings
    annotations: Path
    images: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The stages of an experiment, resolved."""

    out: Path
    prepare: dict[str, PrepareStep]
    train: TrainSettings
    train_on: tuple[str, ...]
    predict: PredictSettings
    predict_on: tuple[tuple[str, str], ...] = ()
    """(name, split) pairs."""
    score: ScoreSettings = field(default_factory=lambda: ScoreSettings(split=""))


def read_experiment(file: Path) -> Experiment:
    """Read an experiment file.

    Raises:
        SettingsError: it is not TOML, a key is unknown, or a name is used that no `prepare` table has.
    """
    tables = read_toml(file)
    for key in tables:
        if key not in _TABLES:
            near = difflib.get_close_matches(key, _TABLES, n=1)
            raise SettingsError(
                f"{file}: no table {key}; "
                + (f"did you mean {near[0]}?" if near else f"there are {', '.join(_TABLES)}")
            )
    home = file.parent
    steps = {name: _read_step(name, table, file) for name, table in tables.get("prepare", {}).items()}
    training, predicting = dict(tables.get("train", {})), dict(tables.get("predict", {}))
    train_on = tuple(training.pop("shards", steps))
    predict_on = tuple(_split_pair(pair, file) for pair in predicting.pop("splits", []))
    for name in (*train_on, *(name for name, _ in predict_on)):
        if name not in steps:
            raise SettingsError(f"{file}: {name} is not prepared; there are {', '.join(steps) or 'no prepare tables'}")
    return Experiment(
        out=home / tables.get("out", f"runs/{file.stem}"),
        prepare=steps,
        train=overlay_settings(train_preset(training.get("preset", "base")), training, str(file), "train."),
        train_on=train_on,
        predict=overlay_settings(PredictSettings(), predicting, str(file), "predict."),
        predict_on=predict_on,
        score=overlay_settings(ScoreSettings(split=""), tables.get("score", {}), str(file), "score."),
    )


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What the stages of an experiment left."""

    shards: dict[str, Path]
    """Prepared folders by the experiment's names."""
    checkpoint: Path
    scores: list[dict[str, Any]]
    """The score documents, in the order of `predict_on`."""


def run_stages(experiment: Experiment, *, note: Note, progress: Progress) -> Stages:
    """Run every stage that is not finished yet, in order.

    Args:
        experiment: the stages.
        note: called with one line per stage: what was done, or why it was skipped.
        progress: called with (done, total, remark) inside a stage, with (0, 0, its name) where one begins.

    Raises:
        ArtifactError, CheckpointError, DataError, SettingsError: whatever a stage raises.
    """
    shards = {name: _prepare(experiment, name, note, progress) for name in experiment.prepare}
    train_on = [shards[name] for name in experiment.train_on]
    preset = experiment.train.preset
    checkpoint = train_network(experiment.out, experiment.train, train_on, preset, note=note, progress=progress)
    scores = []
    for name, split in experiment.predict_on:
        settings = replace(experiment.predict, split=split)
        folder = predict_split(experiment.out, settings, checkpoint, shards[name], name, note=note, progress=progress)
        scoring = replace(experiment.score, split=split)
        result = score.run(folder, shards[name], scoring, out=folder / "score", progress=progress)
        scores.append(result.document)
    return Stages(shards=shards, checkpoint=checkpoint, scores=scores)


def train_network(
    out: Path, settings: TrainSettings, shards: Sequence[Path], name: str, *, note: Note, progress: Progress
) -> Path:
    """Train into a folder of `out` that carries `name` and the key of settings and shards; returns that folder.

    Raises:
        ArtifactError, CheckpointError, DataError, SettingsError: as `igvg train`.
    """
    inputs, options = train.describe(settings, shards)
    folder = _name_folder(out, "train", inputs, options, name)
    _tell(note, folder, train.run(settings, shards, folder, progress=progress))
    return folder


def predict_split(
    out: Path, settings: PredictSettings, checkpoint: Path, shards: Path, name: str, *, note: Note, progress: Progress
) -> Path:
    """Predict `settings.split` of one prepared folder into a folder of `out` named likewise; returns that folder.

    Raises:
        ArtifactError, CheckpointError, DataError: as `igvg predict`.
    """
    inputs, options = predict.describe(settings, checkpoint, shards)
    folder = _name_folder(out, "predict", inputs, options, f"{name}-{settings.split}")
    _tell(note, folder, predict.run(settings, checkpoint, shards, folder, progress=progress))
    return folder


def _prepare(experiment: Experiment, name: str, note: Note, progress: Progress) -> Path:
    step = experiment.prepare[name]
    inputs, options = prepare.describe(step.settings, step.annotations, step.images)
    folder = _name_folder(experiment.out, "prepare", inputs, options, name)
    outcome = prepare.run(step.settings, step.annotations, step.images, folder, progress=progress)
    _tell(note, folder, outcome)
    return folder


def _name_folder(out: Path, stage: str, inputs: Mapping[str, Any], options: Mapping[str, Any], name: str) -> Path:
    """Another key is another folder: a changed setting never meets what an older one made."""
    return out / f"{stage}-{name}-{compute_fingerprint(stage, inputs, options)[:_KEY_LENGTH]}"


def _tell(note: Note, folder: Path, outcome: tuple[Artifact, bool]) -> None:
    artifact, hit = outcome
    note(f"{artifact.stage}: {folder} " + ("is up to date: same inputs, same settings" if hit else "is finished"))


def _read_step(name: str, table: Mapping[str, Any], file: Path) -> PrepareStep:
    values = {"dataset": name, **table}
    missing = [key for key in ("annotations", "images") if key not in values]
    if missing:
        raise SettingsError(f"{file}: prepare.{name} has no {missing[0]}; say where the published files are")
    images = values.pop("images")
    return PrepareStep(
        annotations=file.parent / values.pop("annotations"),
        images=tuple(file.parent / folder for folder in ([images] if isinstance(images, str) else images)),
        settings=from_mapping(PrepareSettings, values, f"{file}: prepare.{name}"),
    )


def _split_pair(pair: str, file: Path) -> tuple[str, str]:
    name, slash, split = pair.rpartition("/")
    if not slash:
        raise SettingsError(f"{file}: predict.splits has {pair!r}; write name/split, e.g. grefcoco/val")
    return name, split
