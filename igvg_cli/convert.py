"""`igvg convert`: predictions as COCO's files, and COCO results as predictions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from igvg_cli import options, render


def convert(
    shards: options.Shards,
    split: options.Split,
    out: Annotated[
        Path, typer.Option(help="Folder for COCO's files; or the prediction file to write.", show_default=False)
    ],
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="INPUT",
            help="predictions.jsonl, or a folder that igvg predict made; or COCO results (.json), one file or several. "
            "Without any, the annotations alone are written.",
            show_default=False,
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="COCO data set whose images carry expression_id; otherwise annotations.json beside INPUT."),
    ] = None,
    score_threshold: Annotated[float, typer.Option(help="Leave out COCO results that score less; 0: none.")] = 0,
    force: options.Force = False,
) -> None:
    """Turn predictions into COCO's files for pycocotools and viewers, or COCO results into predictions to score.

    Example: igvg convert runs/first-val --shards data/grefcoco --split val --out coco

    Example: igvg convert --shards data/grefcoco --split val --out coco

    Example: igvg convert coco/boxes.json coco/segmentations.json --shards data/grefcoco --split val --out found.jsonl

    In COCO's files every expression is an image of its own; all predictions have category 1: evaluate with useCats = 0.
    """
    inputs = inputs or []
    to_coco = all(path.suffix != ".json" or path.is_dir() for path in inputs)
    if to_coco and (len(inputs) > 1 or annotations is not None or score_threshold):
        raise typer.BadParameter("several inputs, --annotations and --score-threshold go with COCO results (.json)")
    if not to_coco and not all(path.suffix == ".json" for path in inputs):
        raise typer.BadParameter("give either predictions, or COCO results (.json)")
    if not math.isfinite(score_threshold):
        raise typer.BadParameter("--score-threshold must be a finite number")

    from pipelines.prediction.coco_export import ANNOTATIONS
    from pipelines.prediction.coco_import import CocoResults
    from pipelines.stages import convert as stage

    if to_coco:
        with render.show_progress("converting"):
            exported = stage.export_predictions(next(iter(inputs), None), shards, split, out, force=force)
        cached = exported.cached
        counts = ", ".join(f"{count} {name}" for name, count in exported.counts.items())
    else:
        results = CocoResults(
            files=inputs,
            annotations=annotations or inputs[0].with_name(ANNOTATIONS),
            threshold=score_threshold,
        )
        with render.show_progress("converting"):
            imported = stage.import_results(results, shards, split, out, force=force)
        report, cached = imported.report, imported.cached
        counts = f"{report.expressions} expressions, {report.no_target} without a target"
    if cached:
        render.note(f"{out} is up to date: same input, same shards; nothing to do.")
    render.print_line(f"{out}: {counts}")
