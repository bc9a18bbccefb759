"""The summary of a report: what stands above its gallery, about sets of predictions and about a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.config.settings import ScoreSettings
from pipelines.evaluation.comparison import compare_outcomes
from pipelines.evaluation.evaluator import SplitOutcomes
from pipelines.evaluation.score_report import build_report
from pipelines.report.learning_section import TrainingCurves, describe_training
from pipelines.report.score_sections import (
    build_composition,
    build_headlines,
    describe_breakdown,
    describe_differences,
    describe_scores,
)
from pipelines.report.sections import Composition, Headline, Section, letter_sets
from pipelines.report.threshold_section import ThresholdCurve, describe_thresholds


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionSet:
    """A set of predictions, compared with the ground truth."""

    name: str
    outcomes: SplitOutcomes
    curve: ThresholdCurve | str
    """Its scores under other thresholds, or why there are none: the end of a sentence after "because"."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a report shows above its gallery."""

    sets: tuple[tuple[str, str], ...] = ()
    """Letter and name of each set of predictions; the letter of a single one is empty."""
    headlines: tuple[Headline, ...] = ()
    composition: Composition | None = None
    """Of the split; None for a training alone."""
    sections: tuple[Section, ...] = ()


def build_summary(
    sets: Sequence[PredictionSet], settings: ScoreSettings, training: TrainingCurves | None = None
) -> Summary:
    """The summary of at most two sets of predictions for one split, and of a training.

    The numbers are those of `igvg score` and, for two sets, of `igvg compare`, with the same settings.
    """
    names = [each.name for each in sets]
    sections: list[Section] = []
    reports = [build_report(each.outcomes, settings) for each in sets]
    if reports:
        sections.append(describe_scores(names, reports))
        if len(sets) > 1:
            sides = (sets[0].outcomes, sets[1].outcomes)
            sections.append(describe_differences(compare_outcomes((names[0], names[1]), sides, settings)))
        sections.append(describe_breakdown(names, reports))
        sections.append(describe_thresholds(names, [each.curve for each in sets]))
    if training:
        sections.append(describe_training(training))
    letters = letter_sets(names) if len(names) > 1 else ("",) * len(names)
    return Summary(
        sets=tuple(zip(letters, names, strict=True)),
        headlines=build_headlines(reports) if reports else (),
        composition=build_composition(reports[0]) if reports else None,
        sections=tuple(sections),
    )
