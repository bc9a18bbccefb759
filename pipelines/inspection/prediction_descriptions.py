"""Prediction files of any model, folders of raw outputs, and single chunks described."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from pipelines.inspection.description import Cell, Description, Table, measure_file, measure_folder
from pipelines.prediction.prediction import Prediction, parse_prediction
from pipelines.prediction.raw_format import read_arrays
from pipelines.prediction.raw_store import RawReader, locate_chunk
from shards.errors import DataError, join_first
from shards.masks import rle_area

# Lines that are parsed; a whole set of 280,000 would take a minute.
_PARSED = 2000
_BLOCK = 1 << 24


def describe_lines(file: Path) -> Description:
    """A file of JSON lines: predictions, or the log of a training.

    Raises:
        DataError: its first line is no JSON object.
    """
    with file.open("rb") as stream:
        first = stream.readline(_BLOCK)
    try:
        document = json.loads(first)
    except (ValueError, RecursionError) as error:
        raise DataError(f"its first line is not JSON ({error})", file=file, remedy="give JSON lines") from error
    if isinstance(document, dict) and "step" in document:
        return describe_log(file)
    return describe_predictions(file)


def describe_log(file: Path) -> Description:
    """The log of a training."""
    return Description(
        path=str(file), kind="training log", what="the log of igvg train", **measure_file(file), facts=read_log(file)
    )


def read_log(file: Path) -> dict[str, Cell]:
    """The last step, epoch and loss of a training's log, and its last validation; damaged lines are passed over."""
    facts: dict[str, Cell] = {}
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return facts
    for line in lines:
        try:
            entry = json.loads(line)
            facts |= {"last step": entry["step"], "last epoch": entry["epoch"]}
            if "losses" in entry:
                facts["last loss"] = entry["losses"].get("total")
            for folder, scores in (entry.get("scores") or {}).items():
                shown = ", ".join(f"{name} {value:.2f}" for name, value in scores.items() if value is not None)
                facts[f"last validation on {Path(folder).name}"] = shown
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return facts


def describe_predictions(file: Path) -> Description:
    """A prediction file; of a long one, only the first lines are parsed."""
    parsed: list[Prediction] = []
    notes = []
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                if line.strip():
                    parsed.append(parse_prediction(line, file, number))
            except DataError as error:
                notes.append(f"line {number} is no prediction: {error.what}")
                break
            if len(parsed) == _PARSED:
                break
    if not parsed:
        raise DataError(notes[0] if notes else "holds no line", file=file, remedy="give a prediction file")
    lines = _count_lines(file)
    if lines > len(parsed):
        notes.append(f"boxes, masks and data sets are those of the first {len(parsed)} lines")
    facts: dict[str, Cell] = {"lines": lines, **_summarize(parsed)}
    return Description(
        path=str(file),
        kind="predictions",
        what="a prediction file",
        **measure_file(file),
        facts=facts,
        notes=tuple(notes),
    )


def _summarize(predictions: list[Prediction]) -> dict[str, Cell]:
    datasets = Counter(one.id.split("/")[0] for one in predictions)
    boxes = [len(one.boxes) for one in predictions if one.boxes is not None]
    masks = [one.mask for one in predictions if one.mask is not None]
    return {
        "data set": ", ".join(datasets),
        "no target": sum(one.no_target for one in predictions),
        "one box": sum(count == 1 for count in boxes) if boxes else None,
        "several boxes": sum(count > 1 for count in boxes) if boxes else None,
        "boxes": sum(boxes) if boxes else "not predicted",
        "scores": "yes" if any(one.scores is not None for one in predictions) else "none",
        "masks that are not empty": sum(rle_area(mask) > 0 for mask in masks) if masks else "not predicted",
    }


def _count_lines(file: Path) -> int:
    count, last = 0, b"\n"
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


def describe_raw(folder: Path) -> Description:
    """A folder of raw outputs; arrays are those of its first chunk."""
    chunks = sorted(folder.glob("chunk-*.npz"))
    tables: tuple[Table, ...] = ()
    if chunks:
        tables = (_tabulate_arrays(chunks[0]),)
    try:
        reader = RawReader(folder)
    except DataError as error:
        facts: dict[str, Cell] = {"chunks": len(chunks)}
        note = f"unfinished or damaged: {error.what}"
        return Description(
            path=str(folder), kind="raw outputs", what="raw outputs of the network, without a readable index",
            **measure_folder(folder), facts=facts, tables=tables, notes=(note,),
        )  # fmt: skip
    facts = {
        "expressions": len(reader),
        "chunks": len(reader.chunks),
        "masks are kept above the object probability": reader.mask_floor,
    }
    missing = [index for index in range(len(reader.chunks)) if not locate_chunk(folder, index).is_file()]
    return Description(
        path=str(folder),
        kind="raw outputs",
        what="raw outputs of the network, which igvg sweep and igvg predict --from post-process",
        **measure_folder(folder),
        facts=facts,
        tables=tables,
        notes=(f"chunk {missing[0]} is missing",) if missing else (),
    )


def describe_chunk(file: Path) -> Description:
    """One chunk of raw outputs.

    Raises:
        DataError: it is another archive of NumPy's, or damaged.
    """
    with zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    if "class_logits" not in names:
        what = f"is a NumPy archive ({join_first(names, 4)}), not raw outputs of igvg"
        raise DataError(what, file=file, remedy="give a file or folder of igvg")
    arrays = read_arrays(file)
    ids = arrays["ids"]
    facts: dict[str, Cell] = {
        "expressions": len(ids),
        "first": str(ids[0]),
        "last": str(ids[-1]),
        "queries": int(arrays["boxes"].shape[1]),
        "instance masks": len(arrays["mask_owners"]),
        "side of the network's image": int(arrays["picture_size"]),
    }
    return Description(
        path=str(file),
        kind="raw chunk",
        what="one chunk of raw outputs",
        **measure_file(file),
        facts=facts,
        tables=(_tabulate_arrays(file),),
    )


def _tabulate_arrays(file: Path) -> Table:
    arrays: Any = read_arrays(file)
    rows = tuple((name, str(array.dtype), " × ".join(map(str, array.shape)) or "–") for name, array in arrays.items())
    return Table(title=f"arrays of {file.name}", columns=("array", "type", "shape"), rows=rows)
