"""`igvg ablate`: trains and scores every variant of a training setting that a table of the paper varies.

Every variant has its own training and prediction, in folders whose names carry the key of their inputs and settings: an
interrupted ablation continues, and a variant that two tables share is trained once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config.overrides import overlay_settings
from pipelines.config.ratios import check_distinct, check_ratios
from pipelines.config.settings import PredictSettings, ScoreSettings, TrainSettings
from pipelines.evaluation.score_report import ScoreReport
from pipelines.experiments.experiment import predict_split, train_network
from pipelines.stages import score
from shards.errors import SettingsError
from shards.index import INDEX
from shards.progress import log


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the paper: what it varies, and what it shows."""

    title: str
    group: str
    """The group of `TrainSettings` that the varied setting belongs to."""
    key: str
    symbol: str
    """The paper's name for it."""
    values: tuple[float, ...]
    metrics: tuple[str, ...]
    """The metrics that the paper's table shows, in its order."""

    @property
    def setting(self) -> str:
        """The varied setting as `--set` takes it."""
        return f"{self.group}.{self.key}"


TABLES = {
    "table-9": Table(
        title="weight of the point cost in the matching",
        group="matching",
        key="point_cost",
        symbol="λ_point",
        values=(1.0, 2.0, 5.0, 10.0),
        metrics=("F1score", "gIoU", "cIoU"),
    ),
    "table-10": Table(
        title="number of queries",
        group="model",
        key="num_queries",
        symbol="N_q",
        values=(3, 5, 10, 20, 30),
        metrics=("F1score", "N-acc", "gIoU", "cIoU"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One value of the varied setting, scored on one data set."""

    value: float
    checkpoint: str
    predictions: str
    score: ScoreReport


@dataclass(frozen=True, kw_only=True)
class AblationReport:
    """The scores of all variants of a table."""

    setting: str
    symbol: str
    title: str
    metrics: list[str]
    variants: list[Variant]

    def to_json(self) -> dict[str, Any]:
        """What `igvg ablate --format json` prints."""
        variants = [vars(variant) | {"score": variant.score.to_json()} for variant in self.variants]
        return vars(self) | {"variants": variants}


def run(table: Table, settings: TrainSettings, shards: Sequence[Path], split: str, out: Path) -> AblationReport:
    """Train and score every variant that is not finished yet.

    Args:
        table: one of `TABLES`.
        settings: of the training; the varied one is replaced.
        shards: folders to train on together; those that hold `split` are scored.
        split: the split that is predicted and scored.
        out: folder for every variant's artifacts.

    Raises:
        ArtifactError, CheckpointError, DataError: as the stages raise.
        SettingsError: no folder holds the split, a folder is given twice, or a variant is not possible.
    """
    scored = find_scored(settings, shards, split)
    # All variants are resolved before the first training, so that an impossible one costs nothing.
    settings_of = {
        value: overlay_settings(settings, {table.group: {table.key: value}}, table.setting) for value in table.values
    }
    predicting = PredictSettings(split=split, precision=settings.precision, postprocess=settings.postprocess)
    variants = []
    for value, training in settings_of.items():
        log(f"{table.setting} = {value:g}")
        checkpoint = train_network(out, training, shards, training.preset, "ablate")
        for folder in scored:
            predictions = predict_split(out, predicting, checkpoint, folder, folder.name)
            report = score.run(predictions, folder, ScoreSettings(split=split), out=predictions / "score").report
            variants.append(
                Variant(value=value, checkpoint=str(checkpoint), predictions=str(predictions), score=report)
            )
    return AblationReport(
        setting=table.setting,
        symbol=table.symbol,
        title=table.title,
        metrics=list(table.metrics),
        variants=variants,
    )


def find_scored(settings: TrainSettings, shards: Sequence[Path], split: str) -> list[Path]:
    """The folders of a training that hold a split.

    Raises:
        SettingsError: none does, a folder is given twice, or the ratios are not those of the folders.
    """
    check_ratios(settings.ratios, shards)
    check_distinct(shards, settings.ratios)
    scored = [folder for folder in shards if (folder / split / INDEX).is_file()]
    if not scored:
        raise SettingsError(f"none of the --shards holds split '{split}'; give --split, or prepare it")
    return scored
