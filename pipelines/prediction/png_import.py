"""Predictions from PNG masks and their index.json, as `igvg convert --to png` writes them, edited or not.

The files may come from any program. Every value is checked, and sizes before an image is decoded.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.prediction.alignment import check_mask_size
from pipelines.prediction.json_values import STRICT, check_type, shorten
from pipelines.prediction.png_export import INDEX
from pipelines.prediction.prediction import Prediction, parse_prediction
from shards.errors import DataError, join_first
from shards.files import read_json
from shards.image_formats import open_png_mask
from shards.masks import encode_image
from shards.reader import ShardReader
from shards.record import LONGEST_SIDE, Rle

_REMEDY = "give a folder that igvg convert --to png wrote"
_MASK_REMEDY = "save it as PNG in gray, 0 outside the mask and 255 inside, at the size of its image"
_SHOWN = 3


def read_png_masks(folder: Path, reader: ShardReader | None) -> list[Prediction]:
    """The predictions of a folder, in the order of the shards, or of index.json where there are none.

    Boxes, scores and `no_target` are those of index.json; masks are those of the files.

    Args:
        folder: index.json and the masks that it names.
        reader: the split that the predictions are for; None: one's own images.

    Raises:
        DataError: a file is missing, damaged or no mask, or the expressions are not those of the split.
    """
    file = folder / INDEX
    entries = read_json(file, "the index of PNG masks in JSON", _REMEDY, **STRICT)
    if not isinstance(entries, list):
        raise DataError("is no list of masks", file=file, remedy=_REMEDY)
    found: dict[str, Prediction] = {}
    for number, entry in enumerate(entries, start=1):
        prediction = _read_entry(entry, file, number)
        if prediction.id in found:
            raise DataError(f"{prediction.id} is given twice", file=file, remedy="keep one of its entries")
        found[prediction.id] = prediction
    return list(found.values()) if reader is None else _order_by_split(found, reader, file)


def _read_entry(entry: Any, file: Path, number: int) -> Prediction:
    try:
        name = check_type(check_type(entry, dict, "it", "an object").get("file"), str, "file", "the name of a mask")
        if Path(name).name != name or name in ("", ".", ".."):
            raise ValueError(f"file {shorten(name)} is not the name of a file in this folder")
    except ValueError as error:
        raise DataError(str(error), file=file, record=f"entry {number}", remedy=_REMEDY) from error
    line = {key: value for key, value in entry.items() if key not in ("file", "image", "text")}
    line["mask"] = _read_mask(file.parent / name)
    return parse_prediction(json.dumps(line).encode(), file, number)


def _read_mask(file: Path) -> Rle:
    """The mask of a PNG.

    Raises:
        DataError: it is missing, damaged, or holds other values than 0 and 255.
    """
    try:
        with warnings.catch_warnings(action="ignore"), open_png_mask(file) as image:
            if max(image.size) > LONGEST_SIDE or image.mode not in ("1", "L"):
                what = f"is {image.width} × {image.height} pixels in mode {image.mode}, no mask"
                raise DataError(what, file=file, remedy=_MASK_REMEDY)
            others = [value for value, count in enumerate(image.histogram()) if count and value not in (0, 255)]
            mask = encode_image(image)
    except FileNotFoundError as error:
        raise DataError("no such mask", file=file, remedy=_REMEDY) from error
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        raise DataError("cannot be read as PNG", file=file, remedy=_MASK_REMEDY) from error
    if others:
        raise DataError(f"holds the value {others[0]}", file=file, remedy=_MASK_REMEDY)
    return mask


def _order_by_split(found: dict[str, Prediction], reader: ShardReader, file: Path) -> list[Prediction]:
    """The predictions in the order of a split, if they are exactly its own and masks have the sizes of its images."""
    ordered: list[Prediction] = []
    missing: list[str] = []
    for record in reader.records():
        for expression in record.expressions:
            if (prediction := found.pop(expression.id, None)) is None:
                missing.append(expression.id)
                continue
            try:
                check_mask_size(record, prediction)
            except DataError as error:
                raise DataError(error.what, file=file, remedy=error.remedy) from error
            ordered.append(prediction)
    if found:
        what = f"{join_first(list(found), _SHOWN)}: not in split '{reader.split}' of {reader.folder}"
        raise DataError(what, file=file, remedy="give the masks of this split")
    if missing:
        raise DataError(
            f"has no mask for {join_first(missing, _SHOWN)}", file=file, remedy="give all masks of the split"
        )
    return ordered
