"""`igvg compare`: two sets of predictions for the same expressions, their scores, and where they differ most."""

from __future__ import annotations

from pathlib import Path

from pipelines.config.settings import ScoreSettings
from pipelines.evaluation.comparison import ComparisonReport, compare_outcomes
from pipelines.evaluation.evaluator import evaluate_split
from pipelines.stages.artifact import StageResult
from shards.progress import log


def run(
    before: Path, after: Path, shards: Path, settings: ScoreSettings, *, most: int = 10
) -> StageResult[ComparisonReport]:
    """Score both sets of predictions on a split and report the differences; log warnings about them.

    Args:
        before: a prediction file, or the folder of `igvg predict`.
        after: likewise; differences are `after` less `before`.
        shards: folder that `igvg prepare` made.
        settings: as of `igvg score`.
        most: number of expressions to list, by descending difference.

    Raises:
        DataError: either is damaged, or does not hold just the split's expressions.
    """
    a, b = (evaluate_split(path, shards, settings.split, settings.resolution) for path in (before, after))
    for warning in dict.fromkeys((*a.warnings, *b.warnings)):
        log(warning)
    return StageResult(report=compare_outcomes((str(before), str(after)), (a, b), settings, most=most))
