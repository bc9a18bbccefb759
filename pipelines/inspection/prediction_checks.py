"""Checks of predictions and raw outputs: the index and, in full, every line and chunk, and that both agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pipelines.inspection.findings import Inventory
from pipelines.prediction.prediction import Prediction, parse_prediction
from pipelines.prediction.prediction_file import PREDICTIONS
from pipelines.prediction.raw_format import read_arrays
from pipelines.prediction.raw_store import INDEX, RAW_FOLDER, RawReader, locate_chunk
from shards.errors import DataError


def check_predictions(folder: Path, inventory: Inventory, counts: dict[str, Any] | None = None) -> None:
    """Check the predictions of a folder and the raw outputs beside them; `counts` are those of its record."""
    expected = (counts or {}).get("expressions")
    raw_ids: list[str | None] | None = None
    if (folder / RAW_FOLDER).is_dir():
        raw_ids = check_raw(folder / RAW_FOLDER, inventory, expected)
    file = folder / PREDICTIONS
    if not inventory.full or not file.is_file():
        return
    with inventory.collect(file):
        # Only ids are kept: the masks of a whole set take gigabytes.
        ids = [prediction.id if prediction else None for prediction in _read_lines(file, inventory)]
        inventory.records += len(ids)
        if expected is not None and len(ids) != expected:
            inventory.add(file, f"has {len(ids)} lines, the record says {expected}")
        for repeated, times in Counter(ids).items():
            if repeated is not None and times > 1:
                inventory.add(file, f"{repeated} is given {times} times")
        if raw_ids is not None:
            _compare_ids(file, ids, raw_ids, inventory)


def check_raw(folder: Path, inventory: Inventory, expected: int | None = None) -> list[str | None] | None:
    """Check a folder of raw outputs; returns the ids in full, None for each of a damaged chunk, else None."""
    ids: list[str | None] = []
    complete = False
    with inventory.collect(folder / INDEX):
        reader = RawReader(folder)
        if expected is not None and len(reader) != expected:
            inventory.add(folder / INDEX, f"holds {len(reader)} expressions, the record says {expected}")
        chunks = {locate_chunk(folder, index): count for index, count in enumerate(reader.chunks)}
        for extra in sorted(set(folder.glob("chunk-*.npz")) - chunks.keys()):
            inventory.add(extra, f"is not among the chunks of {INDEX}")
        for file, count in chunks.items():
            inventory.advance()
            if not file.is_file():
                inventory.add(file, "is missing")
            elif inventory.full:
                found: list[str] | None = None
                with inventory.collect(file):
                    found = [str(one) for one in read_arrays(file)["ids"]]
                    inventory.records += len(found)
                    if len(found) != count:
                        raise DataError(f"holds {len(found)} expressions, {INDEX} says {count}")
                ids += found if found is not None else [None] * count
        complete = inventory.full
    return ids if complete else None


def _read_lines(file: Path, inventory: Inventory) -> Iterator[Prediction | None]:
    """The prediction of each line; None for a damaged one, which is noted."""
    first: Prediction | None = None
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            prediction = None
            with inventory.collect(file, f"line {number}"):
                if not line.endswith(b"\n"):
                    raise DataError("the file breaks off", file=file, record=f"line {number}")
                prediction = parse_prediction(line, file, number)
                first = first or prediction
                for key in ("boxes", "mask"):
                    if (getattr(prediction, key) is None) != (getattr(first, key) is None):
                        raise DataError(f"'{key}' is in some lines alone", file=file, record=f"line {number}")
            yield prediction


def _compare_ids(file: Path, ids: list[str | None], raw_ids: list[str | None], inventory: Inventory) -> None:
    """Name the first expression that is not the same in both; damaged ones, None, are passed over."""
    for number, (one, other) in enumerate(zip_longest(ids, raw_ids, fillvalue=""), start=1):
        if one is not None and other is not None and one != other:
            what = f"is about {one or 'nothing'}, the raw outputs about {other or 'nothing'}"
            inventory.add(file, what, f"line {number}")
            return
