"""`igvg ablate`: the ablations of training settings in the paper's tables, and of its ideas."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from igvg_cli import options, render

_TABLES = ("table-9", "table-10", "components")


def ablate(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="table-9: weight of the point cost; table-10: number of queries; "
            "components: with and without each idea of the paper.",
        ),
    ],
    out: options.Out,
    shards: options.MixedShardFolders = None,
    split: Annotated[
        str,
        typer.Option(
            help="Split to predict and score, of every folder that holds it: val; of the drawn images, testA.",
            show_default=False,
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each variant of components.")] = 3,
    preset: options.OptionalPreset = None,
    recipe: options.Recipe = "",
    config: options.Config = None,
    set_: options.Set = None,
    held_out: options.HeldOut = None,
    format_: options.Format = "table",
) -> None:
    """Train, predict and score every variant, and print the paper's table or what each idea changes.

    Example: igvg ablate table-9 --shards data/grefcoco --out runs/point-cost --preset tiny --set epochs=1

    Example: igvg ablate table-10 --shards data/grefcoco --out runs/queries --recipe ablation

    Example: igvg ablate components --out runs/components

    Without --shards, components draws images of many small shapes, and trains the preset tiny on the encoder of shapes.
    Every variant keeps its artifacts; the same command continues after an interruption.
    """
    if table not in _TABLES:
        raise typer.BadParameter(f"{table} is none of {', '.join(_TABLES)}")
    from pipelines.config.overrides import read_settings
    from pipelines.config.presets import train_preset
    from pipelines.config.ratios import take_ratios
    from pipelines.config.recipes import find_recipe
    from pipelines.experiments import ablation, component_study, components, drawn_set
    from shards.remote_folders import locate_shards

    if not shards and table != "components":
        raise typer.BadParameter("give prepared folders; only components draws its own images", param_hint="--shards")
    on_drawn = not shards and preset is None
    base = components.study_settings() if on_drawn else train_preset(preset or ("base" if shards else "tiny"))
    settings = read_settings(base, config, set_ or [], recipe=find_recipe(recipe))
    settings = replace(settings, held_out=(*settings.held_out, *(held_out or ())))
    texts, settings = take_ratios(shards or [], settings)
    folders = [locate_shards(text) for text in texts]
    with render.show_progress("ablation"):
        if table == "components":
            split = split or ("val" if folders else drawn_set.SCORED_SPLIT)
            folders = folders or [drawn_set.draw_shards(out, drawn_set.DrawnSet())]
            study = component_study.run(settings, folders, split, out, num_seeds=seeds)
        else:
            report = ablation.run(ablation.TABLES[table], settings, folders, split or "val", out)
    if format_ == "json":
        render.print_json((study if table == "components" else report).to_json())
    elif table == "components":
        render.print_components(study)
    else:
        render.print_ablation(report)
