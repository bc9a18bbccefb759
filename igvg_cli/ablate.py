"""`igvg ablate`: the ablations of training settings in the paper's tables, on your own data."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import typer

from igvg_cli import options, render


def ablate(
    table: Annotated[
        Literal["table-9", "table-10"],
        typer.Argument(help="table-9: weight of the point cost; table-10: number of queries."),
    ],
    shards: options.MixedShardFolders,
    out: options.Out,
    split: Annotated[str, typer.Option(help="Split to predict and score, of every folder that holds it.")] = "val",
    preset: options.Preset = "base",
    recipe: options.Recipe = "",
    config: options.Config = None,
    set_: options.Set = None,
    held_out: options.HeldOut = None,
    format_: options.Format = "table",
) -> None:
    """Train, predict and score every variant of a table of the paper, and print that table.

    Example: igvg ablate table-9 --shards data/grefcoco --out runs/point-cost --preset tiny --set epochs=1

    Example: igvg ablate table-10 --shards data/grefcoco --out runs/queries --recipe ablation

    Every variant keeps its artifacts; the same command continues after an interruption.
    """
    from pipelines.config.overrides import read_settings
    from pipelines.config.presets import train_preset
    from pipelines.config.ratios import take_ratios
    from pipelines.config.recipes import find_recipe
    from pipelines.experiments import ablation
    from shards.remote_folders import locate_shards

    settings = read_settings(train_preset(preset), config, set_ or [], recipe=find_recipe(recipe))
    settings = replace(settings, held_out=(*settings.held_out, *(held_out or ())))
    texts, settings = take_ratios(shards or [], settings)
    folders = [locate_shards(text) for text in texts]
    with render.show_progress("ablation"):
        report = ablation.run(ablation.TABLES[table], settings, folders, split, out)
    if format_ == "json":
        render.print_json(report.to_json())
    else:
        render.print_ablation(report)
