"""Checks of single files by what their names say that they hold."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable
from pathlib import Path

from pipelines.inspection.findings import Inventory
from pipelines.inspection.weights import find_non_finite, read_header
from shards.errors import DataError
from shards.file_kinds import explain_unreadable
from shards.files import read_json, read_text
from shards.image_formats import ImageBombError, open_image

# Bytes; larger JSON is read in full verification alone.
_QUICK = 1 << 24
_REMEDY = "make it again"
_IMAGES = (".png", ".jpg", ".jpeg")


def check_content(file: Path, inventory: Inventory) -> None:
    """Read a file: in part, or all of it if the verification is full."""
    check = _CHECKS.get(file.suffix.lower())
    if check is not None:
        with inventory.collect(file):
            check(file, inventory)


def _check_json(file: Path, inventory: Inventory) -> None:
    if inventory.full or file.stat().st_size <= _QUICK:
        read_json(file, "JSON", _REMEDY)


def _check_lines(file: Path, inventory: Inventory) -> None:
    """Every line is JSON; predictions are read by `check_predictions`."""
    if not inventory.full:
        return
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        try:
            json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"is not JSON ({error})", file=file, record=f"line {number}") from error
        inventory.records += 1


def _check_table(file: Path, inventory: Inventory) -> None:
    if not inventory.full:
        return
    try:
        rows = csv.reader(read_text(file).splitlines(), strict=True)
        width = len(next(rows, []))
        for number, row in enumerate(rows, start=2):
            if len(row) != width:
                raise DataError(f"has {len(row)} columns instead of {width}", file=file, record=f"line {number}")
            inventory.records += 1
    except csv.Error as error:
        raise explain_unreadable(file, "a table in CSV", error, _REMEDY) from error


def _check_image(file: Path, inventory: Inventory) -> None:
    if not inventory.full:
        return
    try:
        with warnings.catch_warnings(action="ignore"), open_image(file, as_stored=True) as image:
            image.load()
    except ImageBombError as error:
        raise DataError(error.what, file=file, remedy=error.remedy) from error
    except Exception as error:  # a parser may raise anything on a damaged file
        raise explain_unreadable(file, "an image", error, _REMEDY, kinds=("PNG", "JPEG")) from error
    inventory.records += 1


def _check_weights(file: Path, inventory: Inventory) -> None:
    tensors, _ = read_header(file)
    if inventory.full:
        inventory.records += len(tensors)
        for name, count in find_non_finite(file):
            inventory.add(file, f"holds {count} values that are not finite numbers", f"tensor {name}")


_CHECKS: dict[str, Callable[[Path, Inventory], None]] = {
    ".json": _check_json,
    ".jsonl": _check_lines,
    ".csv": _check_table,
    ".safetensors": _check_weights,
    **dict.fromkeys(_IMAGES, _check_image),
}
