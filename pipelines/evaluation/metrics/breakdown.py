"""What a headline hides: the same metrics for parts of a split, and how far chance alone could move them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.evaluation.metrics.outcomes import Outcomes, Ratio, summarize

# Shares of the picture that the target's pixels cover: below the first small, from the second on large.
SIZE_BOUNDS = (0.02, 0.15)
MOST_TARGETS = 5


def break_down(outcomes: Outcomes, divide: Callable[[Outcomes], dict[str, Ratio]]) -> dict[str, dict[str, Any]]:
    """Metrics and number of expressions by kind of target, by number of targets and by the target's size.

    Parts without an expression are left out. `size` is the share of the image that the target covers: small below 2 %,
    large from 15 %; an expression about crowd regions alone has none.

    Args:
        outcomes: of a whole split.
        divide: the metrics of its data set, one of `METRICS`.
    """
    targets = outcomes.targets
    drawn = (targets > 0) & ~outcomes.crowd_only
    share = outcomes.target_px / np.maximum(outcomes.image_px, 1)
    low, high = SIZE_BOUNDS
    parts = {
        "kind": {"empty": targets == 0, "single": targets == 1, "multiple": targets > 1},
        "targets": {
            **{str(count): targets == count for count in range(MOST_TARGETS)},
            f"{MOST_TARGETS}+": targets >= MOST_TARGETS,
        },
        "size": {
            "small": drawn & (share < low),
            "medium": drawn & (share >= low) & (share < high),
            "large": drawn & (share >= high),
        },
    }
    return {
        axis: {
            name: {"expressions": int(chosen.sum()), "metrics": _score_part(outcomes.select(chosen), divide)}
            for name, chosen in choices.items()
            if chosen.any()
        }
        for axis, choices in parts.items()
    }


def _score_part(outcomes: Outcomes, divide: Callable[[Outcomes], dict[str, Ratio]]) -> dict[str, float | None]:
    """The metrics of one part; rIoU, which sets a ref's phrases against each other, only where there are both kinds."""
    metrics = summarize(divide(outcomes))
    if "rIoU" in metrics and not outcomes.empty.any():
        metrics["rIoU"] = None
    return metrics
