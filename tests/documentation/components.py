"""The tables of docs/components.md, from what `igvg ablate components --format json` printed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

METRICS = ("gIoU", "cIoU", "N-acc", "T-acc", "F1score")
_TABLE = re.compile(r"(<!-- (\w+), from assets/components\.json -->\n).*?(?=\n\n)", re.DOTALL)


def format_components(page: Path, report: Path) -> str:
    """The page with its tables made again."""
    scores = json.loads(report.read_text(encoding="utf-8"))["datasets"][0]
    tables = {"scores": format_scores(scores), "differences": format_differences(scores)}
    return _TABLE.sub(lambda found: found[1] + tables[found[2]], page.read_text(encoding="utf-8"))


def format_scores(scores: dict[str, Any]) -> str:
    """The mean over seeds of every variant, and the range of the primary metric over seeds."""
    lines = [f"| network | {' | '.join(METRICS)} | gIoU by seed |", "| --- |" + " --- |" * 6]
    for variant in scores["variants"]:
        values = [f"{variant['mean'][name]:.2f}" for name in METRICS]
        seeds = ", ".join(f"{seed['metrics']['gIoU']:.2f}" for seed in variant["seeds"])
        lines.append(f"| {describe(variant)} | {' | '.join(values)} | {seeds} |")
    return "\n".join(lines)


def format_differences(scores: dict[str, Any]) -> str:
    """Every variant less the full network; bold where the interval leaves out 0."""
    lines = [f"| network | {' | '.join(METRICS)} |", "| --- |" + " --- |" * 5]
    for variant in scores["variants"]:
        if variant["differences"]:
            cells = [format_difference(variant["differences"][name]) for name in METRICS]
            lines.append(f"| {describe(variant)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def format_difference(difference: dict[str, Any]) -> str:
    """E.g. `**-1.09** (-2.15 to -0.03)`."""
    low, high = difference["interval"]
    if low == high == 0:
        return "0"
    mean = f"{difference['mean']:+.2f}"
    return f"{mean if low <= 0 <= high else f'**{mean}**'} ({low:.2f} to {high:.2f})"


def describe(variant: dict[str, Any]) -> str:
    """E.g. `without point cost: matched by class and box alone`."""
    return f"without {variant['title']}: {variant['instead']}" if variant["instead"] else str(variant["title"])
