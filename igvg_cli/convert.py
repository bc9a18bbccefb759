"""`igvg convert`: predictions in the formats of other programs, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from igvg_cli import options, render
from shards.remote_folders import locate_shards

if TYPE_CHECKING:
    from pipelines.prediction.coco_import import CocoResults
    from pipelines.stages.artifact import StageResult


class TargetFormat(StrEnum):
    """Formats that predictions are written in."""

    coco = "coco"
    labelme = "labelme"
    png = "png"
    grefcoco = "grefcoco"
    jsonl = "jsonl"


class SourceFormat(StrEnum):
    """Formats that predictions are read from."""

    coco = "coco"
    labelme = "labelme"
    png = "png"
    grefcoco = "grefcoco"


def convert(
    out: Annotated[
        Path, typer.Option(help="Folder for the files; or the prediction file to write.", show_default=False)
    ],
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="INPUT",
            help="predictions.jsonl, or a folder that igvg predict made; or COCO results (.json), one file or several; "
            "or files of labelme, or a folder of PNG masks (--from). Without any, COCO's annotations are written.",
            show_default=False,
        ),
    ] = None,
    shards: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|URL",
            parser=locate_shards,
            help="Folder that igvg prepare made, also at an address; not needed for your own images.",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the shards, e.g. val.")] = None,
    to: Annotated[
        TargetFormat | None,
        typer.Option(
            metavar="FORMAT",
            help="Format to write: coco (COCO's files, the default), labelme (JSON with polygons), "
            "png (masks); or of the shards alone grefcoco (its published files) or jsonl (JSON lines of your own).",
        ),
    ] = None,
    from_: Annotated[
        SourceFormat | None,
        typer.Option(
            "--from", metavar="FORMAT", help="Format to read: labelme, or coco, as which .json files are read."
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="COCO data set whose images carry expression_id; otherwise annotations.json beside INPUT."),
    ] = None,
    score_threshold: Annotated[float, typer.Option(help="Leave out COCO results that score less; 0: none.")] = 0,
    force: options.Force = False,
) -> None:
    """Turn predictions into files of COCO, labelme or PNG masks, or such files into predictions to score.

    Example: igvg convert runs/first-val --shards data/grefcoco --split val --out coco

    Example: igvg convert --shards data/grefcoco --split val --out coco

    Example: igvg convert coco/boxes.json coco/segmentations.json --shards data/grefcoco --split val --out found.jsonl

    Example: igvg convert found --to labelme --out labels

    Example: igvg convert --shards shards/own --to grefcoco --out published

    Example: igvg convert --shards shards/own --to jsonl --out lines

    Example: igvg convert labels --from labelme --out corrected.jsonl

    In COCO's files every expression is an image of its own; all predictions have category 1: evaluate with useCats = 0.
    """
    if to in (TargetFormat.grefcoco, TargetFormat.jsonl):
        if inputs or from_ is not None or annotations is not None or score_threshold or shards is None:
            raise typer.BadParameter(f"--to {to} takes --shards, --split and --out alone")
        _export_shards(to, shards, split, out, force=force)
        return
    request = Request(inputs=inputs or [], to=to, source=from_ or _recognize(inputs or []))
    if request.writes and (len(request.inputs) > 1 or annotations is not None or score_threshold):
        raise typer.BadParameter("several inputs, --annotations and --score-threshold go with COCO results (.json)")
    if request.reads_images and (annotations is not None or score_threshold):
        raise typer.BadParameter("--annotations and --score-threshold do not go with --from labelme or png")
    if not math.isfinite(score_threshold):
        raise typer.BadParameter("--score-threshold must be a finite number")
    request.check()
    from pipelines.stages import convert as stage

    own = request.per_image or (request.writes and any(map(stage.has_own_images, request.inputs)))
    if (shards is None) != (split is None) or (shards is None and not own):
        raise typer.BadParameter(f"{'--split' if shards else '--shards'} is missing; --shards and --split go together")
    chosen = stage.Split(shards=shards, name=split) if shards is not None and split is not None else None
    result: StageResult[Any]
    with render.show_progress("converting"):
        if request.source is SourceFormat.png:
            result = stage.import_png(request.inputs[0], chosen, out, force=force)
        elif request.source is SourceFormat.labelme:
            result = stage.import_labelme(request.inputs, chosen, out, force=force)
        elif request.per_image or (chosen is None and request.writes):
            result = stage.export_images(request.target, request.inputs[0], chosen, out, force=force)
        elif chosen is not None and request.writes:
            file = next(iter(request.inputs), None)
            result = stage.export_predictions(file, chosen.shards, chosen.name, out, force=force)
        elif chosen is not None:
            results = _name_results(request, annotations, score_threshold)
            result = stage.import_results(results, chosen.shards, chosen.name, out, force=force)
    _report(out, result)


def _export_shards(to: TargetFormat, shards: Path, split: str | None, out: Path, *, force: bool) -> None:
    from pipelines.stages import convert as stage

    with render.show_progress("converting"):
        result = stage.export_shards(to.value, shards, split, out, force=force)
    _report(out, result)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be converted into what."""

    inputs: list[Path]
    to: TargetFormat | None
    source: SourceFormat | None

    @property
    def target(self) -> str:
        """The format to write."""
        return (self.to or TargetFormat.coco).value

    @property
    def writes(self) -> bool:
        """Whether predictions are written in another format; otherwise they are read from one."""
        return self.source is None and all(path.suffix != ".json" or path.is_dir() for path in self.inputs)

    @property
    def reads_images(self) -> bool:
        """Whether files of single images are read."""
        return self.source in (SourceFormat.labelme, SourceFormat.png)

    @property
    def per_image(self) -> bool:
        """Whether the other format has files of single images."""
        return self.reads_images or self.target != TargetFormat.coco

    def check(self) -> None:
        """Refuse inputs and formats that do not go together.

        Raises:
            typer.BadParameter: they do not.
        """
        if self.to is not None and not self.writes:
            raise typer.BadParameter("--to goes with predictions; INPUT is read into predictions")
        if self.per_image and not self.inputs:
            raise typer.BadParameter("INPUT is missing")
        if self.source is SourceFormat.png and (len(self.inputs) > 1 or not self.inputs[0].is_dir()):
            raise typer.BadParameter("--from png takes one folder, which igvg convert --to png wrote")
        coco = not self.writes and not self.reads_images
        if coco and not (self.inputs and all(path.suffix == ".json" for path in self.inputs)):
            raise typer.BadParameter("give either predictions, or COCO results (.json)")


def _recognize(inputs: list[Path]) -> SourceFormat | None:
    """PNG masks by their folder; what is else is told by its suffix."""
    is_png = len(inputs) == 1 and (inputs[0] / "index.json").is_file() and any(inputs[0].glob("*.png"))
    return SourceFormat.png if is_png and not (inputs[0] / "predictions.jsonl").exists() else None


def _name_results(request: Request, annotations: Path | None, threshold: float) -> CocoResults:
    from pipelines.prediction.coco_export import ANNOTATIONS
    from pipelines.prediction.coco_import import CocoResults

    annotations = annotations or request.inputs[0].with_name(ANNOTATIONS)
    return CocoResults(files=request.inputs, annotations=annotations, threshold=threshold)


def _report(out: Path, result: StageResult[Any]) -> None:
    if result.report is None:
        counts = ", ".join(f"{count} {name}" for name, count in result.counts.items())
    else:
        counts = f"{result.report.expressions} expressions, {result.report.no_target} without a target"
    if result.cached:
        render.note(f"{out} is up to date: same input, same shards; nothing to do.")
    render.print_line(f"{out}: {counts}")
