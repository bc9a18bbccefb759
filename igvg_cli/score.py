"""`igvg score`: a benchmark's own metrics, for the predictions of any model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igvg_cli import options, render


def score(
    predictions: Annotated[
        Path, typer.Argument(help="predictions.jsonl of any model, or a folder that igvg predict made.")
    ],
    shards: options.Shards,
    split: options.Split,
    format_: options.Format = "table",
    resolution: options.Resolution = 0,
    bootstrap: options.Bootstrap = 1000,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial",
            help="Score the expressions that have predictions alone, e.g. of a validation; a line counts them.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder to keep the scores in, with a table of all expressions.")
    ] = None,
    force: options.Force = False,
) -> None:
    """Score predictions with the metrics of the data set that the shards were made from.

    Example: igvg score runs/first-val --shards data/grefcoco --split val

    Each line of a prediction file is JSON: id, boxes (x0, y0, x1, y1 in pixels), scores, mask (COCO run lengths), and
    no_target, which may be left out. All lines may leave out boxes, or all the mask: that is not scored then.
    """
    from pipelines.config.settings import ScoreSettings
    from pipelines.stages import score as stage

    settings = ScoreSettings(split=split, resolution=resolution, bootstrap=bootstrap, partial=partial)
    with render.show_progress("scoring"):
        result = stage.run(predictions, shards, settings, out=out, force=force)
    if result.cached:
        render.note(f"{out} is up to date: same predictions, same shards, same settings; nothing to do.")
    if format_ == "json":
        render.print_json(result.report.to_json())
    else:
        render.print_scores([result.report])
