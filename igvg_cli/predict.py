"""`igvg predict`: boxes and masks for prepared shards, or for your own images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from igvg_cli import options, render, streams
from igvg_cli.checkpoints import download_checkpoint
from igvg_cli.variadic import VariadicCommand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.data.image_queries import ImageQueries
    from pipelines.report.image_outputs import ImageOutputs

_SHOWN = 5


class PredictCommand(VariadicCommand):
    """`igvg predict`, whose --image takes several images."""

    variadic = ("--image",)


COMMAND_CLASS = PredictCommand


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
    shards: options.OptionalShards = None,
    split: Annotated[str | None, typer.Option(help="Split of the shards, e.g. val.")] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH…",
            help="Images and folders, several after one --image: of a folder every image whose extension igvg prepare "
            "takes.",
        ),
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="What to look for in --image; repeatable.")] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Images and what to look for in each: CSV with the columns image and text, or JSON lines with these "
            "keys; paths are relative to the file."
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS",
            help="Files to write for own images, separated by commas: overlays (default), masks, cutouts, json, coco.",
            show_default=False,
        ),
    ] = None,
    show: Annotated[
        str | None,
        typer.Option(
            metavar="LAYERS",
            help="What overlays show, separated by commas: boxes, masks, points (all three by default), attention.",
            show_default=False,
        ),
    ] = None,
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
    """Find what expressions refer to: predictions.jsonl and raw/, and overlays or other files for your own images.

    Example: igvg predict --checkpoint runs/first --shards data/grefcoco --split val --out runs/first-val

    Example: igvg predict --checkpoint runs/first --image street.jpg --text "the two red cars" --out found

    Example: igvg predict --checkpoint shapes --image a.jpg photos --text "a star" --save cutouts,json --out found

    Example: igvg predict --from runs/first-val --set postprocess.mask_source=instance --out runs/first-val-instance

    Example: igvg predict --checkpoint grounding-dino --masks sam --shards data/grefcoco --split val --out gdino-val

    Several GPUs: torchrun --nproc_per_node 2 -m igvg_cli predict …
    """
    on_shards, on_images = shards is not None or split is not None, bool(image) or bool(text)
    if [on_shards, on_images, pairs is not None, raw is not None].count(True) != 1:
        raise typer.BadParameter("give either --shards and --split, or --image and --text, or --pairs, or --from")
    if on_shards and (shards is None or split is None):
        raise typer.BadParameter("--shards and --split go together")
    if on_images and not (image and text):
        raise typer.BadParameter("--image and --text go together")
    if (checkpoint is None) == (raw is None):
        raise typer.BadParameter("give --checkpoint, or --from, which needs none")
    if masks is not None and raw is not None:
        raise typer.BadParameter("--masks goes with --checkpoint")
    if (save is not None or show is not None) and not (on_images or pairs):
        raise typer.BadParameter("--save and --show go with --image or --pairs")
    outputs = _parse_outputs(save, show)
    queries = _read_queries(image or [], text or [], pairs)

    from pipelines.config.overrides import read_settings
    from pipelines.config.settings import PredictSettings
    from pipelines.prediction.families import default_settings
    from pipelines.stages import predict as stage
    from pipelines.stages import predict_images
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
        elif queries is not None and checkpoint is not None:
            result = predict_images.run_on_images(
                settings, checkpoint, queries, out, outputs=outputs, masks=masks, force=force
            )
    if result.cached:
        render.note(f"{out} is up to date: same input, same settings; nothing to do.")
    _report(out, result.counts, queries)


def _parse_outputs(save: str | None, show: str | None) -> ImageOutputs:
    from pipelines.report.image_outputs import parse_outputs
    from shards.errors import SettingsError

    try:
        return parse_outputs(save, show)
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None


def _read_queries(images: list[Path], texts: list[str], pairs: Path | None) -> ImageQueries | None:
    """What to look for in own images; None: there are none."""
    from pipelines.data.image_pairs import read_pairs
    from pipelines.data.image_queries import query_images

    if pairs is not None:
        return read_pairs(pairs)
    return query_images(images, [streams.decode_argument("--text", word) for word in texts]) if images else None


def _report(out: Path, counts: Mapping[str, Any], queries: ImageQueries | None) -> None:
    """Print the counts and every warning; images that cannot be read are an error."""
    from pipelines.data.image_folder import describe_left_out
    from shards.errors import DataError

    for line in [*(describe_left_out(queries.left_out) if queries else ()), *counts.get("notes", ())]:
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
