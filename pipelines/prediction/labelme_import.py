"""JSON files of labelme as predictions: those that igvg convert wrote, edited or not.

The files may come from any program. Every value is checked, and outlines are validated before C code reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.prediction.coco_export import DEFAULT_SCORE
from pipelines.prediction.json_values import STRICT, check_type, describe_json_error, is_number, shorten
from pipelines.prediction.prediction import MAX_COORDINATE, Prediction
from shards.errors import DataError
from shards.files import read_json
from shards.masks import encode_segmentation, merge_rles, rle_area
from shards.reader import ShardReader
from shards.record import LONGEST_SIDE, Expression, ImageRecord, Rle

_EXPECTED, _REMEDY = "a file of labelme in JSON", "give files that igvg convert --to labelme wrote"
KINDS = frozenset({"boxes", "mask"})


@dataclass(slots=True, kw_only=True)
class LabeledExpression:
    """The shapes read so far for one expression, in pixels of its image."""

    file: Path
    id: str
    text: str
    group_id: int
    size: tuple[int, int] | None
    """Height and width of the image; None if the file does not say them."""
    predicted: frozenset[str]
    """The kinds that the model predicts."""
    no_target: bool | None
    """None if the shapes decide it."""
    boxes: list[list[float]] = field(default_factory=list)
    """x0, y0, x1, y1 each."""
    scores: list[float | None] = field(default_factory=list)
    masks: list[Rle] = field(default_factory=list)


def list_labelme(inputs: Sequence[Path]) -> list[Path]:
    """The files given, and those of folders by name.

    Raises:
        DataError: a folder holds none.
    """
    files: list[Path] = []
    for path in inputs:
        found = [path]
        if path.is_dir():
            found = sorted(file for file in path.glob("*.json") if file.name != "artifact.json")
            if not found:
                raise DataError("holds no .json file", file=path, remedy=_REMEDY)
        files += found
    return files


def read_labelme(files: Sequence[Path], reader: ShardReader | None) -> list[Prediction]:
    """The predictions of labelme files, in the order of the shards, or of the files where there are none.

    A shape belongs to the expression whose text is its label; among equal texts its group id decides. If no file has
    a box, the predictions have no boxes; likewise masks. A file of another program, without a list of expressions, is
    for the image of the split that `imagePath` names: a shape belongs to every expression of the image that is its
    label, and expressions without a shape have no target.

    Args:
        files: the files.
        reader: the split that the predictions are for; None: one's own images.

    Raises:
        DataError: a file is damaged, a shape cannot be read or belongs to no expression, or the expressions are not
            those of the split.
    """
    found: dict[str, LabeledExpression] = {}
    records: dict[str, list[ImageRecord]] = {}
    for file in files:
        for expression in _read_file(file, reader, records):
            if expression.id in found:
                raise DataError(
                    f"{expression.id} is also in {found[expression.id].file}", file=file, remedy="give each image once"
                )
            found[expression.id] = expression
    if reader is not None:
        found = _order_by_split(found, reader)
    kinds = frozenset[str]().union(*(expression.predicted for expression in found.values())) or KINDS
    return [_to_prediction(expression, kinds) for expression in found.values()]


def _read_file(
    file: Path, reader: ShardReader | None, records: dict[str, list[ImageRecord]]
) -> list[LabeledExpression]:
    """The expressions of a file with their shapes; `records` keeps the records of the split by file name."""
    document = read_json(file, _EXPECTED, _REMEDY, **STRICT)
    try:
        check_type(document, dict, "the document", "an object")
        size = _read_size(document)
        is_foreign = "expressions" not in document
        if is_foreign and reader is None:
            remedy = f"{_REMEDY}, or the --shards and --split whose expressions the labels are"
            raise DataError("has no list 'expressions' with ids and texts", file=file, remedy=remedy)
        if is_foreign and reader is not None:
            record = _find_record(document, reader, records)
            expressions = [_begin_expression(file, size, *each) for each in enumerate(record.expressions)]
        else:
            entries = check_type(document["expressions"], list, "expressions", "a list")
            expressions = [_read_expression(entry, file, size) for entry in entries]
        shapes = check_type(document.get("shapes", []), list, "shapes", "a list")
    except (ValueError, OverflowError) as error:
        raise DataError(describe_json_error(error), file=file, remedy=_REMEDY) from error
    for shape_number, shape in enumerate(shapes, start=1):
        try:
            for expression in _find_expressions(shape, expressions, is_foreign=is_foreign):
                _add_shape(shape, expression)
        except (DataError, ValueError, OverflowError) as error:
            raise DataError(describe_json_error(error), file=file, record=f"shape {shape_number}") from error
    return expressions


def _read_size(document: dict[str, Any]) -> tuple[int, int] | None:
    keys = ("imageHeight", "imageWidth")
    if all(document.get(key) is None for key in keys):
        return None
    height, width = (_read_side(document, key) for key in keys)
    return height, width


def _read_side(document: dict[str, Any], key: str) -> int:
    side = document.get(key)
    if type(side) is not int or not 0 < side <= LONGEST_SIDE:
        raise ValueError(f"{key} is {shorten(side)}, not a number of pixels")
    return side


def _read_expression(entry: Any, file: Path, size: tuple[int, int] | None) -> LabeledExpression:
    check_type(entry, dict, "an expression", "an object")
    no_target = entry.get("no_target")
    predicted = check_type(entry.get("predicted", []), list, "predicted", "a list")
    if unknown := [kind for kind in predicted if not isinstance(kind, str) or kind not in KINDS]:
        raise ValueError(f"predicted holds {shorten(unknown[0])}, which is neither boxes nor mask")
    return LabeledExpression(
        file=file,
        id=check_type(entry.get("id"), str, "the id of an expression", "a string"),
        text=check_type(entry.get("text"), str, "the text of an expression", "a string"),
        group_id=check_type(entry.get("group_id"), int, "the group_id of an expression", "a whole number"),
        size=size,
        predicted=frozenset(predicted),
        no_target=None if no_target is None else check_type(no_target, bool, "no_target", "true or false"),
    )


def _find_record(document: dict[str, Any], reader: ShardReader, records: dict[str, list[ImageRecord]]) -> ImageRecord:
    """The record of the split whose image a file of another program is for.

    Raises:
        ValueError: not exactly one image of the split has this name.
    """
    if not records:
        for record in reader.records():
            records.setdefault(PurePosixPath(record.file_name).name, []).append(record)
    path = check_type(document.get("imagePath"), str, "imagePath", "a string")
    name = PurePosixPath(path.replace("\\", "/")).name
    same = records.get(name, [])
    if len(same) != 1:
        raise ValueError(f"imagePath is {shorten(path)}; '{reader.split}' has {len(same) or 'no'} images of this name")
    return same[0]


def _begin_expression(
    file: Path, size: tuple[int, int] | None, index: int, expression: Expression
) -> LabeledExpression:
    return LabeledExpression(
        file=file, id=expression.id, text=expression.text, group_id=index, size=size, predicted=frozenset(),
        no_target=None,
    )  # fmt: skip


def _add_shape(shape: dict[str, Any], expression: LabeledExpression) -> None:
    """Add a shape to its expression.

    Raises:
        ValueError, OverflowError, DataError: it is malformed or of another kind.
    """
    kind, points = shape.get("shape_type"), list(_read_points(shape.get("points")))
    if kind == "polygon":
        if len(points) < 3:
            raise ValueError(f"its polygon has {len(points)} points; a polygon has at least 3")
        flat = [value for point in points for value in point]
        expression.masks.append(encode_segmentation([flat], *_need_size(expression)))
        expression.predicted |= {"mask"}
    elif kind == "rectangle":
        if len(points) not in (2, 4):
            raise ValueError(f"its rectangle has {len(points)} points, not two opposite corners")
        xs, ys = zip(*points, strict=True)
        score = shape.get("score")
        if score is not None and not is_number(score):
            raise ValueError(f"score {shorten(score)} is not a finite number")
        expression.boxes.append([min(xs), min(ys), max(xs), max(ys)])
        expression.scores.append(score)
        expression.predicted |= {"boxes"}
    else:
        raise ValueError(f"shape_type is {shorten(kind)}; draw polygons for masks and rectangles for boxes")


def _need_size(expression: LabeledExpression, file: Path | None = None) -> tuple[int, int]:
    """The size that a mask of an expression needs; `file` is named in the error.

    Raises:
        DataError: the file does not say it.
    """
    if expression.size is None:
        what, remedy = "has no imageHeight and imageWidth, which masks need", "save it with labelme, beside its image"
        raise DataError(what, file=file, remedy=remedy)
    return expression.size


def _find_expressions(
    shape: Any, expressions: Sequence[LabeledExpression], *, is_foreign: bool
) -> list[LabeledExpression]:
    """The expression that a shape belongs to; in files of other programs all whose text is its label.

    Raises:
        ValueError: there is none, or the shape is malformed.
    """
    label = check_type(check_type(shape, dict, "it", "an object").get("label"), str, "label", "a string")
    same = [expression for expression in expressions if expression.text == label]
    if len(same) > 1 and not is_foreign:
        same = [expression for expression in same if expression.group_id == shape.get("group_id")]
    if not same or (len(same) > 1 and not is_foreign):
        known = ", ".join(shorten(expression.text) for expression in expressions[:5])
        group = f" and group_id {shorten(shape.get('group_id'))}" if len(expressions) > 1 and not is_foreign else ""
        owner = "image" if is_foreign else "file"
        raise ValueError(f"label {shorten(label)}{group}: no expression of the {owner} has it; its texts are {known}")
    return same


def _read_points(points: Any) -> Iterator[list[float]]:
    for point in check_type(points, list, "points", "a list of points"):
        if not isinstance(point, list) or len(point) != 2 or not all(is_number(value) for value in point):
            raise ValueError(f"point {shorten(point)} is not two finite numbers x, y")
        if max(map(abs, point)) > MAX_COORDINATE:
            raise ValueError(f"point {shorten(point)} lies beyond any image; points are in pixels")
        yield point


def _order_by_split(found: dict[str, LabeledExpression], reader: ShardReader) -> dict[str, LabeledExpression]:
    """The expressions in the order of a split, if they are exactly its own and the images have its sizes."""
    ordered: dict[str, LabeledExpression] = {}
    missing: list[str] = []
    for record in reader.records():
        for expression in record.expressions:
            if (labeled := found.pop(expression.id, None)) is None:
                missing.append(expression.id)
                continue
            if labeled.size is not None and labeled.size != (record.height, record.width):
                what = f"imageWidth × imageHeight is {labeled.size[1]} × {labeled.size[0]}"
                expected = f"the image of the shards has {record.width} × {record.height} pixels"
                raise DataError(f"{what}; {expected}", file=labeled.file, remedy="label the original image")
            ordered[expression.id] = labeled
    if found:
        first = next(iter(found.values()))
        what = f"{first.id} is no expression of '{reader.split}'"
        raise DataError(what, file=first.file, remedy="give the files of this split")
    if missing:
        total = reader.index.num_expressions
        what = f"{len(missing)} of {total} expressions of '{reader.split}' are in no file, the first {missing[0]}"
        raise DataError(what, remedy="give all files that igvg convert wrote for the split")
    return ordered


def _to_prediction(expression: LabeledExpression, kinds: frozenset[str]) -> Prediction:
    mask = merge_rles(expression.masks, *_need_size(expression, expression.file)) if "mask" in kinds else None
    scores = None
    if "boxes" in kinds and (any(score is not None for score in expression.scores) or not expression.boxes):
        scores = [DEFAULT_SCORE if score is None else score for score in expression.scores]
    empty = not expression.boxes and (mask is None or rle_area(mask) == 0)
    return Prediction(
        id=expression.id,
        boxes=expression.boxes if "boxes" in kinds else None,
        scores=scores,
        mask=mask,
        no_target=empty if expression.no_target is None else expression.no_target,
    )
