"""The scores of a split: metrics, their intervals, and breakdowns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipelines.config.settings import ScoreSettings
from pipelines.evaluation.evaluator import SplitOutcomes
from pipelines.evaluation.metrics.benchmarks import find_metrics
from pipelines.evaluation.metrics.bootstrap import estimate_intervals
from pipelines.evaluation.metrics.breakdown import break_down
from pipelines.evaluation.metrics.outcomes import summarize
from pipelines.evaluation.metrics.rrefcoco import count_left_out, rrefcoco_ratios


@dataclass(frozen=True, kw_only=True)
class ScoreReport:
    """The scores of one split; metrics are percentages from 0 to 100, None where there was nothing to measure."""

    dataset: str
    split: str
    expressions: int
    metrics: dict[str, float | None]
    resolution: int
    """Side length in pixels to which masks were resized; 0: the size of the original images."""
    targets: dict[str, int]
    """Expressions with an `empty`, a `single` or a `multiple` target."""
    breakdown: dict[str, dict[str, Any]]
    """By axis and group of the split: `expressions` and `metrics`."""
    not_predicted: str | None = None
    """`boxes` or `masks`, if the predictions lack them."""
    intervals: dict[str, list[float] | None] | None = None
    """95 % bootstrap intervals of the metrics."""
    crowd_only: int | None = None
    """Expressions about crowd regions alone, if there are any."""
    unmasked: int | None = None
    """Expressions with a target of which only the box is known, if there are any: metrics of masks are None then."""
    left_out: dict[str, int] | None = None
    """The number of refs that averages of R-RefCOCO leave out."""

    def to_json(self) -> dict[str, Any]:
        """What `igvg score --format json` prints; what does not apply is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def build_report(split_outcomes: SplitOutcomes, settings: ScoreSettings) -> ScoreReport:
    """The metrics, intervals and breakdowns of a whole split."""
    outcomes = split_outcomes.outcomes
    ratios = split_outcomes.ratios(outcomes)
    complete = split_outcomes.has_boxes and split_outcomes.has_masks
    intervals = None
    if settings.bootstrap:
        samples, seed = settings.bootstrap, settings.seed
        intervals = estimate_intervals(ratios, outcomes.image_id, samples=samples, seed=seed)
    return ScoreReport(
        dataset=split_outcomes.dataset,
        split=settings.split,
        expressions=len(outcomes),
        metrics=summarize(ratios),
        resolution=settings.resolution,
        targets={
            "empty": int(outcomes.empty.sum()),
            "single": int((outcomes.targets == 1).sum()),
            "multiple": int((outcomes.targets > 1).sum()),
        },
        breakdown=break_down(outcomes, split_outcomes.ratios),
        not_predicted=None if complete else "masks" if split_outcomes.has_boxes else "boxes",
        intervals=intervals,
        crowd_only=int(outcomes.crowd_only.sum()) or None,
        unmasked=int(outcomes.unmasked.sum()) or None,
        left_out=count_left_out(outcomes) if find_metrics(split_outcomes.dataset) is rrefcoco_ratios else None,
    )
