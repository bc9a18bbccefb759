"""`igvg inspect --examples`: a contact sheet of examples with their targets, and with their predictions."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.data.image_decoding import decode_image, read_image
from pipelines.inspection.example_choice import Choice, Records, ShardRecords, choose_examples
from pipelines.inspection.folders import find_kind
from pipelines.prediction.alignment import check_mask_size, locate_predictions
from pipelines.prediction.chunks import OVERLAYS_FOLDER
from pipelines.prediction.prediction import Prediction, parse_prediction
from pipelines.prediction.prediction_file import PREDICTIONS
from pipelines.report.contact_sheet import Panel, Tile, draw_sheet
from pipelines.report.overlay import OverlayContent, draw_overlay
from pipelines.stages.artifact import RECORD, Artifact, read_record
from shards.errors import ArtifactError, DataError, IGVGError
from shards.file_kinds import describe_content
from shards.files import replace_file
from shards.index import INDEX, list_splits
from shards.masks import decode_mask, rle_area, rle_to_box
from shards.reader import ShardReader

_ID = re.compile(rb'"id"\s*:\s*"([^"\\]*)"')
_TITLES = {"none": "no target", "one": "one target", "several": "several targets"}
_REMEDY = "give --shards, the prepared folder that they are about"


def write_examples(path: Path, count: int, out: Path, shards: Path | None = None) -> int:
    """Write a contact sheet in PNG of at most `count` examples; returns how many it shows.

    Args:
        path: prepared shards, a split, a tar, or predictions.
        count: how many examples.
        out: the PNG file.
        shards: what predictions are about; None: looked for beside them by the fingerprint in their record.

    Raises:
        ArtifactError: the path holds no examples, or the shards of predictions are not found.
        DataError: shards or predictions are damaged, or `out` is a file of another kind.
    """
    content = describe_content(out)
    if out.exists() and (content is None or content.kind != "PNG"):
        what = f"is {content.words if content else 'a file of unknown kind'}, not a contact sheet"
        raise DataError(what, file=out, remedy="give another --out")
    with contextlib.ExitStack() as stack:
        tiles = _draw_tiles(path, count, shards, stack)
        if not tiles:
            raise DataError("holds no expression", file=path, remedy="give shards or predictions with some")
        out.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(out) as temporary:
            draw_sheet(tiles).save(temporary, format="png")
    return len(tiles)


def _draw_tiles(path: Path, count: int, shards: Path | None, stack: contextlib.ExitStack) -> list[Tile]:
    record = _read_record(path)
    if record is not None and record.stage == "predict" and "texts" in record.options:
        return _collect_overlays(path if path.is_dir() else path.parent, count)
    if locate_predictions(path).suffix == ".jsonl" and locate_predictions(path).is_file():
        file = locate_predictions(path)
        sources = _open_splits(shards or _find_shards(record, file), _list_wanted(record), stack)
        choices = choose_examples(sources, count, _list_ids(file))
        found = _read_chosen(file, {choice.expression.id for choice in choices})
        if not choices:
            raise DataError("is about none of the expressions of these shards", file=file, remedy=_REMEDY)
        return [_draw_tile(choice, found.get(choice.expression.id)) for choice in choices]
    return [_draw_tile(choice, None) for choice in choose_examples(_open(path, stack), count)]


def _open(path: Path, stack: contextlib.ExitStack) -> list[Records]:
    """The records of prepared shards, of a split or of a tar."""
    if path.is_file() and path.suffix == ".tar":
        return [ShardRecords(path)]
    if path.is_file() and path.name in (INDEX, RECORD):
        path = path.parent
    if path.is_dir():
        if find_kind(path) == "split":
            path = path.absolute()
            return _open_splits(path.parent, [path.name], stack)
        if find_kind(path) == "shards":
            return _open_splits(path, list_splits(path), stack)
    raise ArtifactError(f"{path} holds no examples to draw; give shards, a split, a .tar or predictions")


def _open_splits(folder: Path, splits: Sequence[str], stack: contextlib.ExitStack) -> list[Records]:
    return [stack.enter_context(ShardReader(folder, split)) for split in splits or list_splits(folder)]


def _read_record(path: Path) -> Artifact | None:
    """The record of the artifact that a path is, or lies in."""
    folder = path if path.is_dir() else path.parent
    with contextlib.suppress(IGVGError):
        return read_record(folder / RECORD)
    return None


def _list_wanted(record: Artifact | None) -> list[str]:
    """The split that was predicted; none: it is not known."""
    split = record.options.get("split") if record else None
    return [split] if isinstance(split, str) and split else []


def _find_shards(record: Artifact | None, file: Path) -> Path:
    """The prepared folder with the fingerprint that predictions were made from, near them or the working directory."""
    fingerprint = record.inputs.get("shards") if record else None
    for folder in _list_near(file) if fingerprint else ():
        with contextlib.suppress(IGVGError):
            if read_record(folder / RECORD).fingerprint == fingerprint:
                return folder
    state = "their record names no shards" if not fingerprint else "the shards that they were made from are not near"
    raise ArtifactError(f"{file}: {state}; {_REMEDY}")


def _list_near(file: Path) -> Iterator[Path]:
    """Artifacts beside the folder of a file and up to two folders above, and below the working directory."""
    home = file.absolute().parent
    bases = dict.fromkeys((home.parent, home.parent.parent, Path.cwd()))
    for pattern in (f"*/{RECORD}", f"*/*/{RECORD}"):
        for base in bases:
            yield from (record.parent for record in sorted(base.glob(pattern)))


def _list_ids(file: Path) -> set[str]:
    """The ids of a prediction file, found without parsing its masks."""
    with file.open("rb") as stream:
        return {found[1].decode(errors="replace") for line in stream if (found := _ID.search(line))}


def _read_chosen(file: Path, ids: set[str]) -> dict[str, Prediction]:
    """The predictions of some expressions."""
    predictions = {}
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            found = _ID.search(line)
            if found and found[1].decode(errors="replace") in ids:
                prediction = parse_prediction(line, file, number)
                predictions[prediction.id] = prediction
    return predictions


def _draw_tile(choice: Choice, prediction: Prediction | None) -> Tile:
    record, expression = choice.record, choice.expression
    image = decode_image(choice.records.image(choice.index), record.file_name)
    targets = record.targets(expression)
    masks = np.zeros((len(targets), record.height, record.width), dtype=bool)
    for row, instance in enumerate(targets):
        if instance.mask is not None:
            masks[row] = decode_mask(instance.mask)
    content = OverlayContent(
        boxes=np.array([target.box for target in targets], dtype=np.float64).reshape(-1, 4),
        scores=None,
        mask=np.asarray(masks.any(axis=0)),
        instance_masks=masks,
    )
    target = draw_overlay(image, expression.text, content)
    title = f"{_TITLES[choice.kind]} · {expression.id} · {record.file_name}"
    if prediction is None:
        return Tile(title=title, panels=(Panel(title="", overlay=target),))
    check_mask_size(record, prediction)
    found = draw_overlay(image, expression.text, _show_prediction(prediction, record.height, record.width))
    return Tile(title=title, panels=(Panel(title="target", overlay=target), Panel(title="prediction", overlay=found)))


def _show_prediction(prediction: Prediction, height: int, width: int) -> OverlayContent:
    """A prediction's boxes and merged mask; of a mask alone, the box around it."""
    mask = np.zeros((height, width), dtype=bool) if prediction.mask is None else decode_mask(prediction.mask)
    boxes, scores = prediction.boxes or [], prediction.scores
    if prediction.boxes is None and prediction.mask is not None and rle_area(prediction.mask):
        boxes, scores = [list(rle_to_box(prediction.mask))], None
    if prediction.no_target:
        boxes, scores = [], None
    return OverlayContent(
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        scores=None if scores is None else np.array(scores, dtype=np.float64),
        mask=mask,
        instance_masks=np.zeros((len(boxes), height, width), dtype=bool),
    )


def _collect_overlays(folder: Path, count: int) -> list[Tile]:
    """The overlays of the user's own images, evenly chosen."""
    files = sorted((folder / OVERLAYS_FOLDER).glob("*.png"))
    if not files:
        raise ArtifactError(f"{folder}: {PREDICTIONS} is about own images, and its {OVERLAYS_FOLDER} are missing")
    shown = [files[index * len(files) // min(count, len(files))] for index in range(min(count, len(files)))]
    tiles = []
    for file in shown:
        overlay = Image.fromarray(read_image(file))
        tiles.append(Tile(title=file.stem, panels=(Panel(title="", overlay=overlay),)))
    return tiles
