"""`igvg compare`: the difference between two sets of predictions, with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igvg_cli import options, render


def compare(
    a: Annotated[Path, typer.Argument(help="predictions.jsonl, or a folder that igvg predict made.")],
    b: Annotated[Path, typer.Argument(help="Likewise.")],
    shards: options.Shards,
    split: options.Split,
    format_: options.Format = "table",
    resolution: options.Resolution = 0,
    bootstrap: options.Bootstrap = 1000,
    most: Annotated[int, typer.Option(min=0, help="Expressions to list, those that differ most.")] = 10,
) -> None:
    """Compare the scores of two sets of predictions: B less A, with paired intervals, and where they differ most.

    Example: igvg compare runs/first-val runs/second-val --shards data/grefcoco --split val

    If an interval does not contain 0, other images of the same kind would show the difference, too.
    """
    from pipelines.config.settings import ScoreSettings
    from pipelines.stages import compare as stage

    settings = ScoreSettings(split=split, resolution=resolution, bootstrap=bootstrap)
    with render.show_progress("comparing"):
        report = stage.run(a, b, shards, settings, most=most).report
    if format_ == "json":
        render.print_json(report.to_json())
    else:
        render.print_comparison(report)
