"""`igvg run`: the stages that one TOML file names, each in a folder whose name carries the key of what it is made from.

A stage runs if the file has its table, and only then.

```toml
out = "runs/first"                      # paths are relative to this file

[prepare.grefcoco]                      # a name of your choice; several are fine
dataset = "grefcoco"                    # if other than the name
annotations = "data/grefcoco"
images = ["data/train2014"]

[train]
shards = ["grefcoco"]                   # names from above, or prepared folders, "A:2" with a ratio; without it all
preset = "tiny"
recipe = "grefcoco"                     # what igvg train --recipe takes; the keys below change it
init = "beit3.zip"                      # what igvg train --init takes
held_out = ["refcoco"]                  # names or folders that are not trained on, as igvg train --held-out
epochs = 3                              # any setting of igvg train

[predict]
splits = ["grefcoco/val"]               # name/split or folder/split; any setting of igvg predict may follow
checkpoint = "runs/other"               # without [train]: a network, as igvg predict takes it; "USER/REPO" on the hub
masks = "sam"                           # with a zero-shot model: what igvg predict --masks takes

[score]                                 # of what is predicted above
resolution = 0                          # any setting of igvg score
predictions = ["found.jsonl"]           # without [predict]: what to score, one for each of `splits`
splits = ["shards/grefcoco/val"]
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipelines.config.overrides import overlay_settings, read_toml
from pipelines.config.presets import train_preset
from pipelines.config.ratios import check_distinct, take_ratios
from pipelines.config.recipes import find_recipe
from pipelines.config.settings import PredictSettings, PrepareSettings, ScoreSettings, TrainSettings, ZeroShotSettings
from pipelines.evaluation.score_report import ScoreReport
from pipelines.networks import resolve_checkpoint
from pipelines.prediction.families import default_settings
from pipelines.stages import predict, prepare, score, train
from pipelines.stages.artifact import KeyedFolder, StageResult
from shards.errors import SettingsError, near_match_hint
from shards.index import read_index
from shards.progress import log
from shards.remote_addresses import is_url, name_remote
from shards.remote_folders import locate_shards

STAGES = ("prepare", "train", "predict", "score")


@dataclass(frozen=True, kw_only=True)
class PrepareStep:
    """One data set of an experiment."""

    settings: PrepareSettings
    annotations: Path
    images: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The stages of an experiment, resolved; settings of a stage that is not named are the defaults."""

    out: Path
    stages: frozenset[str]
    """Those of `STAGES` that the file names."""
    folders: dict[str, Path]
    """Prepared folders that the file names by their paths."""
    prepare: dict[str, PrepareStep]
    train: TrainSettings
    train_on: tuple[str, ...]
    predict: PredictSettings | ZeroShotSettings
    predict_on: tuple[tuple[str, str], ...] = ()
    """(name, split) pairs."""
    checkpoint: Path | None = None
    """The network to predict with where none is trained."""
    masks: Path | None = None
    """A SAM checkpoint that gives masks for the boxes of a zero-shot model."""
    scored: tuple[Path, ...] = ()
    """Predictions to score where none are made, one for each of `score_on`."""
    score_on: tuple[tuple[str, str], ...] = ()
    """(name, split) pairs."""
    score: ScoreSettings = field(default_factory=lambda: ScoreSettings(split=""))


def read_experiment(file: Path) -> Experiment:
    """Read an experiment file.

    Raises:
        SettingsError: it is not TOML, names no stage, a key is unknown, a stage lacks what it works on, or a name is
            used that is neither that of a `prepare` table nor a folder.
        CheckpointError: a checkpoint on the hub cannot be downloaded.
    """
    tables = read_toml(file)
    _check_tables(tables, file)
    home = file.parent
    steps = {name: _read_step(name, table, file) for name, table in tables.get("prepare", {}).items()}
    training, predicting, scoring = (dict(tables.get(stage, {})) for stage in STAGES[1:])
    train_on, train_settings = _read_sets(training, steps, file)
    predict_on, score_on = (
        tuple(_split_pair(pair, where) for pair in _read_strings(table.pop("splits", []), where))
        for table, where in ((predicting, f"{file}: predict.splits"), (scoring, f"{file}: score.splits"))
    )
    names = (*train_on, *train_settings.held_out, *(name for name, _ in (*predict_on, *score_on)))
    scored = _read_strings(scoring.pop("predictions", []), f"{file}: score.predictions")
    checkpoint, masks = (
        _read_string(predicting.pop(key, ""), f"{file}: predict.{key}") for key in ("checkpoint", "masks")
    )
    experiment = Experiment(
        out=home / _read_string(tables.get("out", f"runs/{file.stem}"), f"{file}: out"),
        stages=frozenset(tables) & frozenset(STAGES),
        folders={name: _find_shards(name, steps, file) for name in names if name not in steps},
        prepare=steps,
        train=train_settings,
        train_on=train_on,
        predict=PredictSettings(),
        predict_on=predict_on,
        checkpoint=Path(checkpoint) if checkpoint else None,
        scored=tuple(home / path for path in scored),
        score_on=score_on,
        score=overlay_settings(ScoreSettings(split=""), scoring, str(file), "score."),
    )
    _check_stages(experiment, file)
    # Last, because a checkpoint on the hub is downloaded. What it is decides which settings there are.
    init = experiment.train.init
    network = resolve_checkpoint(checkpoint, home) if checkpoint else None
    return replace(
        experiment,
        checkpoint=network,
        masks=resolve_checkpoint(masks, home) if masks else None,
        predict=overlay_settings(default_settings(network), predicting, str(file), "predict."),
        train=replace(experiment.train, init=str(resolve_checkpoint(init, home)) if init else ""),
    )


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What the stages of an experiment left."""

    shards: dict[str, Path]
    """Prepared folders by the experiment's names."""
    network: Path | None
    """The checkpoint that was trained or named; None where there is neither."""
    scores: list[ScoreReport]
    """The scores, in the order of `predict_on`, or of `score_on` where nothing is predicted."""

    @property
    def checkpoint(self) -> Path:
        """The network of an experiment that has one."""
        assert self.network is not None
        return self.network


def run_stages(experiment: Experiment, command: Literal["run", "demo"] = "run") -> Stages:
    """Run every stage that is not finished yet, in order, for a command.

    Raises:
        ArtifactError, CheckpointError, DataError, SettingsError: as the stages raise.
    """
    shards = {name: _prepare(experiment, name) for name in experiment.prepare} | experiment.folders
    for name, split in (*experiment.predict_on, *experiment.score_on):
        # A missing split is an error before the training, not after it.
        read_index(shards[name], split)
    network = experiment.checkpoint
    if "train" in experiment.stages:
        train_on, preset = [shards[name] for name in experiment.train_on], experiment.train.preset
        held_out = tuple(str(shards[name]) for name in experiment.train.held_out)
        settings = replace(experiment.train, held_out=held_out)
        network = train_network(experiment.out, settings, train_on, preset, command)
    scores = []
    for name, split in experiment.predict_on:
        assert network is not None, "read_experiment checks it"
        predicting = replace(experiment.predict, split=split)
        folder = predict_split(experiment.out, predicting, network, shards[name], name, masks=experiment.masks)
        if "score" in experiment.stages:
            scores.append(_score(experiment, folder, shards[name], split, folder / "score"))
    for predictions, (name, split) in zip(experiment.scored, experiment.score_on, strict=True):
        out = KeyedFolder(experiment.out, f"{shards[name].name}-{split}")
        scores.append(_score(experiment, predictions, shards[name], split, out))
    return Stages(shards=shards, network=network, scores=scores)


def train_network(
    out: Path, settings: TrainSettings, shards: Sequence[Path], name: str, command: Literal["run", "demo", "ablate"]
) -> Path:
    """Train into a folder of `out` that carries `name` and the key of settings and shards; returns that folder.

    Raises:
        ArtifactError, CheckpointError, DataError, SettingsError: as `igvg train`.
    """
    return _log_stage(train.run(settings, shards, KeyedFolder(out, name), command=command))


def predict_split(
    out: Path,
    settings: PredictSettings | ZeroShotSettings,
    checkpoint: Path,
    shards: Path,
    name: str,
    *,
    masks: Path | None = None,
) -> Path:
    """Predict `settings.split` of one prepared folder into a folder of `out` named likewise; returns that folder.

    Raises:
        ArtifactError, CheckpointError, DataError: as `igvg predict`.
    """
    folder = KeyedFolder(out, f"{name_remote(name) if is_url(name) else name}-{settings.split}")
    return _log_stage(predict.run(settings, checkpoint, shards, folder, masks=masks))


def _prepare(experiment: Experiment, name: str) -> Path:
    step = experiment.prepare[name]
    return _log_stage(prepare.run(step.settings, step.annotations, step.images, KeyedFolder(experiment.out, name)))


def _score(experiment: Experiment, predictions: Path, shards: Path, split: str, out: Path | KeyedFolder) -> ScoreReport:
    result = score.run(predictions, shards, replace(experiment.score, split=split), out=out)
    _log_stage(result)
    return result.report


def _log_stage(result: StageResult[Any]) -> Path:
    """Log whether a stage did its work or found it done; returns the artifact's folder."""
    assert result.artifact is not None
    state = "is up to date: same inputs, same settings" if result.cached else "is finished"
    log(f"{result.artifact.stage}: {result.folder} {state}")
    return result.folder


def _check_tables(tables: Mapping[str, Any], file: Path) -> None:
    known = ("out", *STAGES)
    for key, value in tables.items():
        if key not in known:
            raise SettingsError(f"{file}: no table {key}; {near_match_hint(key, known)}")
        if key in STAGES and not isinstance(value, dict):
            raise SettingsError(f"{file}: {key} is {value!r}, not a table; write [{key}]")
    if not set(tables) & set(STAGES):
        raise SettingsError(f"{file}: names no stage; write a table [{'], ['.join(STAGES)}] for each stage to run")


def _check_stages(experiment: Experiment, file: Path) -> None:
    """Refuse a stage that has nothing to work on, and what belongs to a stage that is not named."""
    named = experiment.stages
    errors = {
        "train has no shards; name prepared folders in shards, or write a [prepare.NAME]": "train" in named
        and not experiment.train_on,
        "predict has no splits; name them as name/split, e.g. grefcoco/val": "predict" in named
        and not experiment.predict_on,
        "predict has no network; write [train], or name a checkpoint": "predict" in named
        and "train" not in named
        and experiment.checkpoint is None,
        "predict has a checkpoint, and train makes one; leave out either": "train" in named
        and experiment.checkpoint is not None,
        "score has predictions or splits of its own beside [predict]; leave them out": "predict" in named
        and bool(experiment.scored or experiment.score_on),
        "score has nothing to score; write [predict], or name predictions and splits": "score" in named
        and "predict" not in named
        and not experiment.scored,
        "score needs as many splits as predictions": len(experiment.scored) != len(experiment.score_on),
    }
    for what, wrong in errors.items():
        if wrong:
            raise SettingsError(f"{file}: {what}")


def _find_shards(name: str, steps: Mapping[str, PrepareStep], file: Path) -> Path:
    if is_url(name):
        return locate_shards(name)
    folder = file.parent / name
    if not folder.is_dir():
        there = ", ".join(steps) or "no prepare tables"
        raise SettingsError(f"{file}: {name} is not prepared; there are {there}, and no folder {folder}")
    return folder


def _read_step(name: str, table: Any, file: Path) -> PrepareStep:
    if not isinstance(table, dict):
        raise SettingsError(f"{file}: prepare.{name} is {table!r}, not a table; write [prepare.NAME]")
    values = {"dataset": name, **table}
    missing = [key for key in ("annotations", "images") if key not in values]
    if missing:
        raise SettingsError(f"{file}: prepare.{name} has no {missing[0]}; say where the published files are")
    annotations = _read_string(values.pop("annotations"), f"{file}: prepare.{name}.annotations")
    images = _read_strings(values.pop("images"), f"{file}: prepare.{name}.images")
    return PrepareStep(
        annotations=file.parent / annotations,
        images=tuple(file.parent / folder for folder in images),
        settings=prepare.choose_settings(values, f"{file}: prepare.{name}"),
    )


def _read_sets(
    table: dict[str, Any], steps: Mapping[str, PrepareStep], file: Path
) -> tuple[tuple[str, ...], TrainSettings]:
    """The sets to train on, and the settings of the training with their ratios."""
    where, home = f"{file}: train.shards", file.parent
    texts = _read_strings(table.pop("shards", list(steps)), where)
    settings = _read_training(table, file)
    names, settings = take_ratios(texts, settings, lambda name: name in steps or (home / name).exists(), source=where)
    check_distinct(
        [Path(f"[prepare.{name}]") if name in steps else home / name for name in names], settings.ratios, source=where
    )
    return tuple(names), settings


def _read_training(table: Mapping[str, Any], file: Path) -> TrainSettings:
    """The settings of a training; its tokenizer is relative to the experiment's file, as all paths are."""
    preset: Any = _read_string(table.get("preset", "base"), f"{file}: train.preset")
    recipe = _read_string(table.get("recipe", ""), f"{file}: train.recipe")
    changes = {key: value for key, value in table.items() if key != "recipe"}
    try:
        base, recipe_file = train_preset(preset), find_recipe(recipe)
    except SettingsError as error:
        raise SettingsError(f"{file}: {error}") from error
    settings = overlay_settings(base, changes, str(file), "train.", recipe=recipe_file)
    tokenizer = settings.text.tokenizer
    return replace(settings, text=replace(settings.text, tokenizer=str(file.parent / tokenizer) if tokenizer else ""))


def _read_string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise SettingsError(f"{where} is {value!r}, not a string")
    return value


def _read_strings(value: Any, where: str) -> tuple[str, ...]:
    """A list of strings, or a single one."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise SettingsError(f"{where} is {value!r}, not a list of strings")
    return tuple(values)


def _split_pair(pair: str, where: str) -> tuple[str, str]:
    name, slash, split = pair.rpartition("/")
    if not slash:
        raise SettingsError(f"{where} has {pair!r}; write name/split, e.g. grefcoco/val")
    return name, split
