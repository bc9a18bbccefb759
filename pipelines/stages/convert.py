"""`igvg convert`: predictions become files of COCO, labelme or PNG masks, and these predictions again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.prediction.coco_export import ANNOTATIONS, BOXES, SEGMENTATIONS, write_annotations, write_results
from pipelines.prediction.coco_import import CocoResults, read_results
from pipelines.prediction.coco_own_images import write_own_coco
from pipelines.prediction.image_predictions import ImagePredictions, group_own_images, group_split
from pipelines.prediction.labelme_export import write_labelme
from pipelines.prediction.labelme_import import list_labelme, read_labelme
from pipelines.prediction.png_export import write_png_masks
from pipelines.prediction.png_import import read_png_masks
from pipelines.prediction.prediction import Prediction
from pipelines.prediction.prediction_file import PREDICTIONS, read_predictions, write_predictions
from pipelines.stages.artifact import RECORD, Stage, StageResult, read_artifact
from pipelines.stages.inputs import digest_input, digest_shards, find_predictions
from pipelines.stages.whole_folder import read_loose_record, write_folder
from shards.annotations.grefcoco_export import write_grefcoco
from shards.annotations.jsonl_export import write_jsonl
from shards.errors import ArtifactError, DataError
from shards.files import digest_file, name_file, remove_drafts, temporary_path
from shards.index import list_splits
from shards.progress import log
from shards.reader import ShardReader

STAGE = "convert"
IMAGE_FORMATS: Mapping[str, Callable[[Path, Iterator[ImagePredictions]], dict[str, int]]] = {
    "labelme": write_labelme,
    "png": write_png_masks,
}
"""What writes the files of an image, by the name of the format."""
OWN_FORMATS = {"coco": write_own_coco, **IMAGE_FORMATS}
"""What writes the files of the user's own images, by the name of the format."""


@dataclass(frozen=True, kw_only=True)
class ShardLayout:
    """A layout of annotation files."""

    write: Callable[[Path, Mapping[str, ShardReader]], dict[str, int]]
    """Writes some splits into a folder; returns counts."""
    losses: Mapping[str, str]
    """What is said of a count if it is not 0: what the layout does not hold."""


SHARD_LAYOUTS: Mapping[str, ShardLayout] = {
    "grefcoco": ShardLayout(
        write=write_grefcoco, losses={"unmasked": "objects have no mask: instances.json has no segmentation of them"}
    ),
    "jsonl": ShardLayout(
        write=write_jsonl,
        losses={
            "crowds": "objects are crowd regions, which JSON lines do not tell: masks of expressions include them",
            "merged": "objects repeat others of their image or expression, and become one with these",
        },
    ),
}
"""The layouts of annotations that shards are written in, by their names."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split of prepared shards."""

    shards: Path
    name: str


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What COCO results, or files of labelme, became."""

    expressions: int
    no_target: int
    """Expressions without a target."""


def export_predictions(
    predictions: Path | None, shards: Path, split: str, out: Path, *, force: bool = False
) -> StageResult[None]:
    """Write predictions as COCO's files: annotations.json, boxes.json and segmentations.json.

    Args:
        predictions: a prediction file, or the folder of `igvg predict`; None writes annotations.json alone.
        shards: folder that `igvg prepare` made.
        split: of the shards.
        out: the folder to make.
        force: replace `out` if it holds what this function made, and nothing else.

    Returns:
        The artifact, whose counts are `expressions`, `targets` and, of predictions, `boxes` and `segmentations`.

    Raises:
        DataError: a prediction is damaged, unknown, missing, given twice, or has a mask of the wrong size.
        ArtifactError: `out` holds something else, or the shards are damaged.
    """
    inputs = {"shards": digest_shards(shards)}
    file = None if predictions is None else find_predictions(predictions)
    if file is not None:
        inputs = {"predictions": digest_input(file), **inputs}
    stage = Stage(name=STAGE, out=out, inputs=inputs, options={"split": split})
    with ShardReader(shards, split) as reader:

        def write(folder: Path) -> dict[str, int]:
            counts = {
                "expressions": reader.index.num_expressions,
                "targets": write_annotations(folder / ANNOTATIONS, reader),
            }
            if file is not None:
                written, warnings = write_results(folder / BOXES, folder / SEGMENTATIONS, file, reader)
                counts |= written
                for warning in warnings:
                    log(warning)
            return counts

        return write_folder(stage, write, force=force)


def has_own_images(predictions: Path) -> bool:
    """Whether a prediction file, or the folder of `igvg predict`, has a record that lists texts for own images."""
    options = read_loose_record(predictions if predictions.is_dir() else predictions.parent).get("options")
    return isinstance(options, dict) and "texts" in options


def export_shards(layout: str, shards: Path, split: str | None, out: Path, *, force: bool = False) -> StageResult[None]:
    """Write prepared shards as annotation files, which `igvg prepare` reads.

    Args:
        layout: one of `SHARD_LAYOUTS`.
        shards: folder that `igvg prepare` made.
        split: one of its splits; None: all of them.
        out: the folder to make.
        force: replace `out` if it holds what this function made, and nothing else.

    Raises:
        DataError: the layout cannot say what the shards hold; names the first expression.
        ArtifactError: `out` holds something else, or the shards are damaged.
    """
    options = {"to": layout, **({"split": split} if split else {})}
    stage = Stage(name=STAGE, out=out, inputs={"shards": digest_shards(shards)}, options=options)
    names = [split] if split else list_splits(shards)
    with contextlib.ExitStack() as stack:
        readers = {name: stack.enter_context(ShardReader(shards, name)) for name in names}

        def write(folder: Path) -> dict[str, int]:
            try:
                counts = SHARD_LAYOUTS[layout].write(folder, readers)
            except DataError as error:
                raise DataError(
                    error.what, file=error.file or shards, record=error.record, remedy=error.remedy
                ) from error
            for name, said in SHARD_LAYOUTS[layout].losses.items():
                if counts[name]:
                    log(f"Warning: {counts[name]} {said}")
            return counts

        return write_folder(stage, write, force=force)


def export_images(
    image_format: str, predictions: Path, split: Split | None, out: Path, *, force: bool = False
) -> StageResult[None]:
    """Write predictions as files of single images: polygons for labelme, or PNG masks; own images as COCO's files, too.

    Args:
        image_format: one of `IMAGE_FORMATS`, or of `OWN_FORMATS` if there is no split.
        predictions: a prediction file, or the folder of `igvg predict`.
        split: what is predicted; None: the user's own images, in a folder of `igvg predict --image`.
        out: the folder to make.
        force: replace `out` if it holds what this stage made, and nothing else.

    Raises:
        DataError: a prediction is damaged, unknown, missing, given twice, or has a mask of the wrong size or none.
        ArtifactError: `out` holds something else, the shards are damaged, or `predictions` are of no own images.
    """
    file = find_predictions(predictions)
    inputs, options = {"predictions": digest_input(file)}, {"to": image_format}
    with contextlib.ExitStack() as stack:
        if split is None:
            texts = _read_own_texts(predictions)
            inputs |= {"texts": json.dumps(texts)}
            images = group_own_images(file, texts)
        else:
            inputs |= {"shards": digest_shards(split.shards)}
            options |= {"split": split.name}
            images = group_split(file, stack.enter_context(ShardReader(split.shards, split.name)))
        stage = Stage(name=STAGE, out=out, inputs=inputs, options=options)
        return write_folder(stage, lambda folder: OWN_FORMATS[image_format](folder, images), force=force)


def import_labelme(
    inputs: Sequence[Path], split: Split | None, out: Path, *, force: bool = False
) -> StageResult[ImportReport]:
    """Write files of labelme, which `export_images` made and which may have been edited, as a prediction file.

    Args:
        inputs: the files, or folders of them.
        split: what they are predictions for; None: the user's own images.
        out: the prediction file.
        force: replace `out` if it is a prediction file that no other command made.

    Raises:
        DataError: a file or a shape of it cannot be used, or the expressions are not those of the split.
        ArtifactError: `out` holds something else.
    """
    _refuse_other_file(out, force=force)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(ShardReader(split.shards, split.name)) if split else None
        predictions = read_labelme(list_labelme(inputs), reader)
    return _write_file(predictions, out, force=force)


def import_png(folder: Path, split: Split | None, out: Path, *, force: bool = False) -> StageResult[ImportReport]:
    """Write PNG masks, which `export_images` made and which may have been edited, as a prediction file.

    Args:
        folder: the masks and their index.json.
        split: what they are predictions for; None: the user's own images.
        out: the prediction file.
        force: replace `out` if it is a prediction file that no other command made.

    Raises:
        DataError: a file cannot be used, or the expressions are not those of the split.
        ArtifactError: `out` holds something else.
    """
    _refuse_other_file(out, force=force)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(ShardReader(split.shards, split.name)) if split else None
        predictions = read_png_masks(folder, reader)
    return _write_file(predictions, out, force=force)


def import_results(
    results: CocoResults, shards: Path, split: str, out: Path, *, force: bool = False
) -> StageResult[ImportReport]:
    """Write COCO results as a prediction file.

    Args:
        results: COCO results with boxes, segmentations or both.
        shards: folder that `igvg prepare` made.
        split: of the shards.
        out: the prediction file.
        force: replace `out` if it is a prediction file that no other command made.

    Raises:
        DataError: a file or an entry of it cannot be used.
        ArtifactError: `out` holds something else.
    """
    if len({file.resolve() for file in results.files}) < len(results.files):
        raise DataError(f"{', '.join(map(str, results.files))}: a file is given twice", remedy="give every file once")
    _refuse_other_file(out, force=force)
    with ShardReader(shards, split) as reader:
        predictions = read_results(results, reader)
    return _write_file(predictions, out, force=force)


def _write_file(predictions: Sequence[Prediction], out: Path, *, force: bool) -> StageResult[ImportReport]:
    """Write a prediction file, unless it is there already."""
    no_target = sum(prediction.no_target for prediction in predictions)
    report = ImportReport(expressions=len(predictions), no_target=no_target)
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_drafts(out)
    with temporary_path(out) as draft:
        with name_file(out, draft):
            write_predictions(draft, predictions)
        if out.exists():
            if digest_file(draft) == digest_file(out):
                return StageResult(report=report, cached=True)
            if not force:
                raise ArtifactError(f"{out} holds something else; choose another --out, or replace it with --force")
        draft.replace(out)
    return StageResult(report=report)


def _refuse_other_file(out: Path, *, force: bool) -> None:
    """Only a prediction file that belongs to no artifact is replaced."""
    if out.is_dir():
        raise ArtifactError(f"{out} is a folder; --out must be a file, such as {PREDICTIONS}")
    if out.exists() and not out.is_file():
        raise ArtifactError(f"{out} is a device or a pipe; --out must be a file, such as {PREDICTIONS}")
    if not force or not out.exists():
        return
    record = read_loose_record(out.parent)
    if out.name == RECORD or out.name in list(record.get("files") or ()):
        raise ArtifactError(f"{out} was made by igvg {record.get('stage')}; choose another --out")
    try:
        next(read_predictions(out), None)
    except DataError as error:
        raise ArtifactError(f"{out} holds no predictions ({error.what}); choose another --out") from error


def _read_own_texts(predictions: Path) -> list[str]:
    """The texts that `igvg predict --image` looked for.

    Raises:
        ArtifactError: the folder was not made by it.
    """
    folder = predictions if predictions.is_dir() else predictions.parent
    if not has_own_images(predictions):
        raise ArtifactError(f"{folder} holds no predictions of own images; add the --shards and --split of its images")
    texts = read_artifact(folder, "predict").options["texts"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ArtifactError(f"{folder / RECORD} lists no texts; predict the images again")
    return texts
