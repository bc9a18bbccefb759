"""`igvg train`: shards in, a checkpoint folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igvg_cli import options, render


def train(
    shards: options.ShardFolders,
    out: options.Out,
    preset: options.Preset = "base",
    config: options.Config = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Published BEiT-3 file (.zip, .pth) or checkpoint folder to start from; or shapes, the network that "
            "igvg ships (--preset tiny)."
        ),
    ] = None,
    set_: options.Set = None,
    force: options.Force = False,
) -> None:
    """Train the network on prepared shards; run the same command again to continue a stopped training.

    Example: igvg train --shards data/grefcoco --out runs/first --preset tiny --set epochs=3

    Several GPUs: torchrun --nproc_per_node 2 -m igvg_cli train … (the batch size is that of all processes together).
    """
    from pipelines.config.overrides import read_settings
    from pipelines.config.presets import train_preset
    from pipelines.stages import train as stage

    overrides = [*(set_ or []), *([f"init={init}"] if init else [])]
    settings = read_settings(train_preset(preset), config, overrides)
    with render.show_progress("training"):
        result = stage.run(settings, shards, out, force=force)
    if result.cached:
        render.note(f"{out} is up to date: same shards, same settings; nothing to do.")
    counts = result.counts
    cut = f", {counts['cut']:,} of them cut at {settings.text.max_tokens} tokens" if counts.get("cut") else ""
    render.print_line(f"{out}: trained {counts['steps']} steps on {counts['expressions']} expressions{cut}")
