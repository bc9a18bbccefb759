"""`igvg sweep`: post-processing again under many settings, without the network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from igvg_cli import options, render


def sweep(
    raw: Annotated[Path, typer.Argument(help="Folder that igvg predict made, or the raw/ in it.", show_default=False)],
    shards: options.Shards,
    split: options.Split,
    grid: Annotated[
        str, typer.Option(help="table-11, table-12 (the paper's axes), or a TOML file of KEY = [VALUES].")
    ] = "",
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE,…", help="Vary a setting of post-processing; repeat for combinations."),
    ] = None,
    set_: options.Set = None,
    format_: Annotated[
        Literal["table", "json", "csv"],
        typer.Option("--format", metavar="FORMAT", help="How to print: table, json (one document) or csv."),
    ] = "table",
    resolution: options.Resolution = 0,
) -> None:
    """Score a prediction under many settings of post-processing; the best of each metric is marked.

    Example: igvg sweep runs/first-val --shards data/grefcoco --split val --grid table-11

    Example: igvg sweep runs/first-val --shards data/grefcoco --split val --vary score_threshold=0.5,0.7 --vary nms=true

    What can be varied: score_threshold, mask_threshold, mask_source, existence_weighting, nms, nms_iou.

    All other settings are those of the prediction, changed by --set. igvg predict --from writes the predictions of one.
    """
    from pipelines.config.overrides import read_settings
    from pipelines.evaluation.sweep_grid import build_grid
    from pipelines.stages import sweep as stage
    from pipelines.stages.inputs import locate_raw, read_postprocessing

    folder = locate_raw(raw)
    settings = read_settings(read_postprocessing(folder), None, set_ or [])
    settings_grid = build_grid(settings, grid, vary or [])
    with render.show_progress("sweeping"):
        report = stage.run(folder, shards, split, settings_grid, resolution=resolution).report
    if format_ == "json":
        render.print_json(report.to_json())
    elif format_ == "csv":
        render.print_sweep_rows(report)
    else:
        render.print_sweep(report)
