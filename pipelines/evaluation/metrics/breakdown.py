"""The metrics of a split by kind of target, by number of targets and by size of the target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines.evaluation.metrics.outcomes import Outcomes, Ratio, safe_divide, summarize

SIZE_BOUNDS = (0.02, 0.15)
"""Fractions of the image that the target's pixels cover: small below the first, large from the second on."""
MAX_TARGETS = 5
"""From this number of targets on, expressions form one group."""


def break_down(outcomes: Outcomes, ratios: Callable[[Outcomes], dict[str, Ratio]]) -> dict[str, dict[str, Any]]:
    """Metrics and number of expressions of each group; groups without an expression are left out.

    An expression about crowd regions alone has no target pixels, and one with a target of which only the box is known
    no known number of them: they belong to no group of `size`.
    """
    targets = outcomes.targets
    has_pixels = (targets > 0) & ~outcomes.crowd_only & ~outcomes.unmasked
    size = safe_divide(outcomes.target_px, outcomes.image_px)
    low, high = SIZE_BOUNDS
    groups = {
        "kind": {"empty": targets == 0, "single": targets == 1, "multiple": targets > 1},
        "targets": {
            **{str(count): targets == count for count in range(MAX_TARGETS)},
            f"{MAX_TARGETS}+": targets >= MAX_TARGETS,
        },
        "size": {
            "small": has_pixels & (size < low),
            "medium": has_pixels & (size >= low) & (size < high),
            "large": has_pixels & (size >= high),
        },
    }
    return {
        axis: {
            name: {
                "expressions": int(selected.sum()),
                "metrics": _score_group(outcomes.select(selected), ratios),
            }
            for name, selected in selections.items()
            if selected.any()
        }
        for axis, selections in groups.items()
    }


def _score_group(outcomes: Outcomes, ratios: Callable[[Outcomes], dict[str, Ratio]]) -> dict[str, float | None]:
    """The metrics of one group. rIoU compares a ref's positive and negative expressions: without both it is None."""
    metrics = summarize(ratios(outcomes))
    if "rIoU" in metrics and not outcomes.empty.any():
        metrics["rIoU"] = None
    return metrics
