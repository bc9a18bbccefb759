"""`igvg predict`: boxes and masks for prepared shards, or for your own images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from igvg_cli import options, render, streams
from igvg_cli.checkpoints import download_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHOWN = 5


def predict(
    out: options.Out,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Folder that igvg train or igvg import made; shapes, the network that igvg ships; or a model of "
            "transformers: Grounding DINO, MM Grounding DINO, OWL-ViT, OWLv2, OmDet-Turbo, SAM 3. Also on the hub: "
            "USER/REPO or USER/REPO@REVISION."
        ),
    ] = None,
    shards: Annotated[Path | None, typer.Option(help="Folder that igvg prepare made.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of the shards, e.g. val.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="An image, or a folder: every image in it whose extension igvg prepare takes.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="What to look for in --image; repeatable.")] = None,
    raw: Annotated[
        Path | None,
        typer.Option("--from", help="Folder that igvg predict made, to post-process again."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="SAM or SAM 2 checkpoint that gives masks for the boxes of a zero-shot model."),
    ] = None,
    config: options.Config = None,
    set_: options.Set = None,
    force: options.Force = False,
) -> None:
    """Find what expressions refer to: predictions.jsonl and raw/, and overlays for your own images.

    Example: igvg predict --checkpoint runs/first --shards data/grefcoco --split val --out runs/first-val

    Example: igvg predict --checkpoint runs/first --image street.jpg --text "the two red cars" --out found

    Example: igvg predict --from runs/first-val --set postprocess.mask_source=instance --out runs/first-val-instance

    Example: igvg predict --checkpoint grounding-dino --masks sam --shards data/grefcoco --split val --out gdino-val

    Several GPUs: torchrun --nproc_per_node 2 -m igvg_cli predict …
    """
    on_shards, on_images = shards is not None or split is not None, image is not None or text is not None
    if [on_shards, on_images, raw is not None].count(True) != 1:
        raise typer.BadParameter("give either --shards and --split, or --image and --text, or --from")
    if on_shards and (shards is None or split is None):
        raise typer.BadParameter("--shards and --split go together")
    if on_images and (image is None or not text):
        raise typer.BadParameter("--image and --text go together")
    if (checkpoint is None) == (raw is None):
        raise typer.BadParameter("give --checkpoint, or --from, which needs none")
    if masks is not None and raw is not None:
        raise typer.BadParameter("--masks goes with --checkpoint")

    from pipelines.config.overrides import read_settings
    from pipelines.config.settings import PredictSettings
    from pipelines.prediction.families import default_settings
    from pipelines.stages import predict as stage
    from pipelines.stages.inputs import locate_raw, read_postprocessing

    if raw is not None:
        base = PredictSettings(postprocess=read_postprocessing(raw := locate_raw(raw)))
        changed = read_settings(base, config, set_ or [])
        if replace(changed, postprocess=base.postprocess) != base:
            raise typer.BadParameter("with --from, only settings of postprocess can change")
    else:
        checkpoint, masks = (download_checkpoint(name) if name else None for name in (checkpoint, masks))
        settings = read_settings(
            default_settings(checkpoint), config, [*(set_ or []), *([f"split={split}"] if split else [])]
        )
    with render.show_progress("predicting"):
        if raw is not None:
            result = stage.run_on_raw(changed.postprocess, raw, out, force=force)
        elif shards is not None and checkpoint is not None:
            result = stage.run(settings, checkpoint, shards, out, masks=masks, force=force)
        elif image is not None and checkpoint is not None:
            texts = [streams.decode_argument("--text", word) for word in text or []]
            result = stage.run_on_images(settings, checkpoint, image, texts, out, masks=masks, force=force)
    if result.cached:
        render.note(f"{out} is up to date: same input, same settings; nothing to do.")
    _report(out, result.counts, image)


def _report(out: Path, counts: Mapping[str, Any], image: Path | None) -> None:
    """Print the counts and every warning; images that cannot be read are an error."""
    from pipelines.data.image_folder import describe_left_out, list_images
    from shards.errors import DataError

    for line in [*(describe_left_out(list_images(image).left_out) if image else ()), *counts.get("notes", ())]:
        render.note(line)
    render.print_line(f"{out}: {counts['expressions']} expressions, {counts['no_target']} without a target")
    unreadable = counts.get("unreadable", {})
    for error in unreadable.values():
        render.note(error)
    if unreadable:
        shown = ", ".join([*list(unreadable)[:_SHOWN], *["…"][: len(unreadable) > _SHOWN]])
        what = f"{len(unreadable)} of {len(unreadable) + counts['images']} images could not be read: {shown}"
        remedy = f"the others' results are in {out}; correct or remove these, and predict into another --out"
        raise DataError(what, remedy=remedy)
