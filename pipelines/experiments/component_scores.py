"""The scores of a network with and without each component, and their differences over seeds and images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.evaluation.evaluator import SplitOutcomes
from pipelines.evaluation.metrics.benchmarks import PRIMARY_METRIC
from pipelines.evaluation.metrics.outcomes import summarize
from pipelines.evaluation.seed_differences import SeedDifference, compare_seeds
from pipelines.experiments.components import FULL, Component
from pipelines.report.learning_section import read_training_log
from shards.datasets import find_family

SAMPLES = 1000
"""Bootstrap samples of images."""


@dataclass(frozen=True, kw_only=True)
class SeedScore:
    """A variant with one seed on one data set."""

    seed: int
    checkpoint: str
    predictions: str
    metrics: dict[str, float | None]
    """In percent, as of `igvg score`."""
    curve: list[list[float]] = field(default_factory=list)
    """Steps and the primary metric of the validation while training; nothing without a training of its own."""


@dataclass(frozen=True, kw_only=True)
class VariantScores:
    """A variant on one data set."""

    key: str
    title: str
    instead: str
    trained: bool
    """Whether it has a training of its own, or the full network's outputs were post-processed again."""
    seeds: list[SeedScore]
    mean: dict[str, float | None]
    """Over seeds."""
    differences: dict[str, SeedDifference | None] | None = None
    """This variant less the full network, below 0 where the component helps; None for the full network."""


@dataclass(frozen=True, kw_only=True)
class DatasetScores:
    """All variants on one data set."""

    dataset: str
    split: str
    expressions: int
    images: int
    curve_metric: str
    variants: list[VariantScores]


@dataclass(frozen=True, kw_only=True)
class ComponentsReport:
    """What `igvg ablate components` shows."""

    seeds: list[int]
    datasets: list[DatasetScores]

    def to_json(self) -> dict[str, Any]:
        """What `igvg ablate components --format json` prints."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ScoredVariant:
    """The predictions of a variant with one seed on one data set."""

    seed: int
    checkpoint: Path
    predictions: Path
    outcomes: SplitOutcomes


def compare_variants(
    folder: Path, split: str, components: Sequence[Component], found: Mapping[str, Sequence[ScoredVariant]]
) -> DatasetScores:
    """The scores of all variants on one prepared folder, and their differences to the full network.

    Args:
        folder: of shards.
        split: that was scored.
        components: the variants, the full network among them.
        found: by component, the predictions with each seed, the seeds in the same order.
    """
    full = found[FULL][0].outcomes
    ratios = {key: [one.outcomes.ratios(one.outcomes.outcomes) for one in scored] for key, scored in found.items()}
    image_ids = full.outcomes.image_id
    variants = []
    for component in components:
        differences = None
        if component.key != FULL:
            differences = compare_seeds(ratios[FULL], ratios[component.key], image_ids, samples=SAMPLES, seed=0)
        variants.append(
            VariantScores(
                key=component.key,
                title=component.title,
                instead=component.instead,
                trained=component.trained,
                seeds=[_describe_seed(one, folder, component) for one in found[component.key]],
                mean=_average([summarize(each) for each in ratios[component.key]]),
                differences=differences,
            )
        )
    return DatasetScores(
        dataset=full.dataset, split=split, expressions=len(full.ids), images=len(set(image_ids.tolist())),
        curve_metric=PRIMARY_METRIC[find_family(full.dataset)], variants=variants,
    )  # fmt: skip


def _describe_seed(scored: ScoredVariant, folder: Path, component: Component) -> SeedScore:
    curve: list[list[float]] = []
    if component.trained:
        curves = read_training_log(scored.checkpoint / "log.jsonl").scores.get(folder.name, {})
        found = curves.get(PRIMARY_METRIC[find_family(scored.outcomes.dataset)])
        curve = [list(point) for point in zip(found.steps, found.values, strict=True)] if found else []
    return SeedScore(
        seed=scored.seed,
        checkpoint=str(scored.checkpoint),
        predictions=str(scored.predictions),
        metrics=summarize(scored.outcomes.ratios(scored.outcomes.outcomes)),
        curve=curve,
    )


def _average(metrics: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for name in metrics[0]:
        values = [each[name] for each in metrics]
        known = [value for value in values if value is not None]
        means[name] = math.fsum(known) / len(known) if len(known) == len(values) else None
    return means
