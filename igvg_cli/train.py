"""`igvg train`: shards in, a checkpoint folder out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from igvg_cli import options, render
from igvg_cli.checkpoints import download_checkpoint


def train(
    shards: options.MixedShardFolders = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.", show_default=False)] = None,
    preset: options.Preset = "base",
    recipe: options.Recipe = "",
    config: options.Config = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Start: a published BEiT-3 file (.zip, .pth), a checkpoint of InstanceVG, SimVG, PropVG or DeRIS (its "
            "encoder), a checkpoint folder, one of these on the hub (USER/REPO or a hf:// file), or shapes, the "
            "network that igvg ships (--preset tiny)."
        ),
    ] = None,
    set_: options.Set = None,
    held_out: options.HeldOut = None,
    show_settings: Annotated[
        bool, typer.Option("--show-settings", help="Print all settings as TOML, as --config takes it, and stop.")
    ] = False,
    log_with: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Also log to an experiment tracker: tensorboard, wandb, mlflow or trackio. Repeatable.",
            show_default=False,
        ),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="On a terminal, show losses, rates and scores in a table while it trains.")
    ] = False,
    profile: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Record a trace of N steps, and print the most expensive operations and what waits for the GPU.",
            show_default=False,
        ),
    ] = 0,
    continue_with: Annotated[
        bool,
        typer.Option(
            "--continue-with",
            help="Continue the training in --out with other settings, where these only matter from now on: epochs, "
            "learning rates and their schedule, precision, weights of the losses.",
        ),
    ] = False,
    force: options.Force = False,
) -> None:
    """Train the network on prepared shards; run the same command again to continue a stopped training.

    Example: igvg train --shards data/grefcoco --out runs/first --preset tiny --set epochs=3

    Example: igvg train --recipe refcoco --set epochs=5 --show-settings

    Settings are those of the preset, changed by the recipe, then by the file of --config, then by --set.

    Sets in ratios: --shards data/grefcoco:2 --shards data/ref-zom:1 takes two of three examples from the first.

    Several GPUs: torchrun --nproc_per_node 2 -m igvg_cli train … (the batch size is that of all processes together).
    """
    from pipelines.config.overrides import read_settings, to_mapping
    from pipelines.config.presets import train_preset
    from pipelines.config.ratios import take_ratios
    from pipelines.config.recipes import find_recipe
    from pipelines.config.toml import format_toml
    from shards.remote_addresses import redact_addresses

    if not show_settings and (not shards or out is None):
        raise typer.BadParameter(f"{'--out' if shards else '--shards'} is missing; only --show-settings needs none")
    if continue_with and force:
        raise typer.BadParameter("--continue-with continues what --force removes; give one of them")
    overrides = [
        *(set_ or []),
        *([f"init={init}"] if init else []),
        *([f"log_with={json.dumps(log_with)}"] if log_with else []),
        *([f"profile_steps={profile}"] if profile else []),
    ]
    settings = read_settings(train_preset(preset), config, overrides, recipe=find_recipe(recipe))
    settings = replace(settings, held_out=(*settings.held_out, *(held_out or ())))
    folders, settings = take_ratios(shards or [], settings)
    if show_settings or not folders or out is None:
        shown = replace(settings, held_out=tuple(map(redact_addresses, settings.held_out)))
        render.print_text(format_toml(to_mapping(shown)).rstrip())
        return

    from pipelines.stages import train as stage
    from shards.remote_folders import locate_shards

    if settings.init:
        settings = replace(settings, init=str(download_checkpoint(settings.init)))
    with render.show_progress("training", live=live):
        located = [locate_shards(folder) for folder in folders]
        result = stage.run(settings, located, out, force=force, continue_with=continue_with)
    counts = result.counts
    if result.cached:
        render.note(f"{out} is up to date: same shards, same settings; nothing to do.")
        for change in counts.get("changes", ()):
            render.note(f"After step {change['step']:,} these changed: {', '.join(change['settings'])}.")
    cut = f", {counts['cut']:,} of them cut at {settings.text.max_tokens} tokens" if counts.get("cut") else ""
    render.print_line(f"{out}: trained {counts['steps']} steps on {counts['expressions']} expressions{cut}")
