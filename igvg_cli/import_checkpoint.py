"""`igvg import`: a published checkpoint becomes a folder that every command reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igvg_cli import options, render
from igvg_cli.checkpoints import download_checkpoint


def import_checkpoint(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Published InstanceVG file (.pth), or one on the hub: hf://USER/REPO/FILE.pth.", show_default=False
        ),
    ],
    out: options.Out,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a file on the hub.", show_default=False)
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="SentencePiece file; otherwise beit3.spm beside the checkpoint.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=3, help="Tokens of an expression at most; otherwise 20 with one query (RefCOCO), else 50, as trained."
        ),
    ] = None,
    ema: Annotated[
        bool, typer.Option("--ema", help="Take the moving average of the weights (ema_state_dict) instead.")
    ] = False,
    force: options.Force = False,
) -> None:
    """Turn a published checkpoint into a folder with config.json, model.safetensors and the tokenizer.

    Example: igvg import InstanceVG-grefcoco.pth --out models/instancevg

    Example: igvg import hf://someone/instancevg/InstanceVG-grefcoco.pth --out models/instancevg

    Size, image size and number of queries are read off the tensors. A file with tensors that are missing, unexpected
    or of the wrong shape is refused, and so is one that asks for code to be run.
    """
    from pipelines.data.tokenizer import SENTENCEPIECE_NAME
    from pipelines.stages import import_checkpoint as stage

    chosen = stage.ImportOptions(max_tokens=max_tokens, ema=ema)
    stage.refuse_repository(checkpoint)
    checkpoint = download_checkpoint(checkpoint, revision)
    with render.show_progress("importing"):
        result = stage.run(checkpoint, out, chosen, tokenizer=tokenizer, force=force)
    if result.cached:
        render.note(f"{out} is up to date: same checkpoint, same tokenizer; nothing to do.")
    counts = result.counts
    if not counts["tokenizer"]:
        render.note(f"{out} has no tokenizer, and predict needs it: put {SENTENCEPIECE_NAME} into that folder.")
    size = f"{counts['encoder_layers']} encoder layers, {counts['queries']} queries"
    pixels = f"images of {counts['image_size']} × {counts['image_size']}"
    tokens = f", at most {counts['max_tokens']} tokens" if "max_tokens" in counts else ""
    render.print_line(f"{out}: {counts['parameters'] / 1e6:.1f} million parameters, {size}, {pixels}{tokens}")
