"""`igvg report`: predictions and training runs as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igvg_cli import options, render


def report(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="One or two sets of predictions (the file of any model, or a folder that igvg predict made), and, or "
            "instead, a folder that igvg train made.",
        ),
    ],
    out: options.Out,
    shards: options.OptionalShards = None,
    split: Annotated[str, typer.Option(help="Split of the shards, e.g. val.", show_default=False)] = "",
    resolution: options.Resolution = 0,
    bootstrap: options.Bootstrap = 1000,
    limit: Annotated[int, typer.Option(min=0, help="Expressions in the gallery at most, the first ones; 0: all.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes; 0 works in this one.", show_default="all processors")
    ] = None,
    force: options.Force = False,
) -> None:
    """Write a page that opens from the disk, without network: scores, charts, and a gallery of all expressions.

    Example: igvg report runs/first-val --shards data/grefcoco --split val --out report

    Example: igvg report runs/first-val runs/second-val runs/first --shards data/grefcoco --split val --out report

    Example: igvg report runs/first --out curves

    Two sets of predictions are shown side by side, with their differences; a training run adds its learning curves.
    """
    if (shards is None) != (not split):
        raise typer.BadParameter("--shards and --split go together")

    from pipelines.config.settings import ReportSettings
    from pipelines.stages import report as stage

    settings = ReportSettings(split=split, resolution=resolution, bootstrap=bootstrap, limit=limit)
    with render.show_progress("reporting"):
        result = stage.run(sources, shards, settings, out, force=force, workers=workers)
    if result.cached:
        render.note(f"{out} is up to date: same inputs, same settings; nothing to do.")
    counts = result.counts
    shown = f"{counts['expressions']} expressions about {counts['images']} images" if counts["sets"] else "a training"
    render.print_line(f"{out / stage.PAGE}: {shown}")
