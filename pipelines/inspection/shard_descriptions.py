"""Prepared shards described: folders, single splits and single tars, from their indexes wherever there is one."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from pipelines.inspection.description import Cell, Description, Table, measure_file, measure_folder
from shards.errors import DataError, IGVGError
from shards.files import read_json
from shards.index import INDEX, list_splits, read_index
from shards.indexing import index_shard
from shards.reader import ShardReader
from shards.record import Expression

TARGET_KINDS = ("none", "one", "several")
"""How many targets an expression has."""
_SPLIT_COLUMNS = ("split", "images", "expressions", *TARGET_KINDS, "instances", "shards", "bytes")
_SHOWN = 12


def target_kind(expression: Expression) -> str:
    """One of `TARGET_KINDS`."""
    return TARGET_KINDS[min(len(expression.instances), 2)]


def describe_shards(folder: Path) -> Description:
    """A prepared folder without a record, from its indexes."""
    return Description(
        path=str(folder),
        kind="shards",
        what="prepared shards, without the record of igvg prepare",
        **measure_folder(folder),
        tables=(tabulate_splits(folder, {}),),
    )


def tabulate_splits(folder: Path, counts: dict[str, Any]) -> Table:
    """The splits of a prepared folder, a row each; kinds of targets are those that its record counted."""
    rows: list[tuple[Cell, ...]] = []
    for split in list_splits(folder):
        index = read_index(folder, split)
        counted = counts.get(split) if isinstance(counts.get(split), dict) else {}
        assert isinstance(counted, dict)
        kinds = (counted.get(name) for name in ("empty", "single", "multiple", "instances"))
        size = sum(entry.bytes for entry in index.shards)
        rows.append((split, len(index), index.num_expressions, *kinds, len(index.shards), size))
    return Table(title="splits", columns=_SPLIT_COLUMNS, rows=tuple(rows))


def describe_split(folder: Path) -> Description:
    """The folder of one split, from its index."""
    index = read_index(folder.parent, folder.name)
    shown = index.shards[:_SHOWN]
    rest = len(index.shards) - len(shown)
    size = sum(entry.bytes for entry in index.shards)
    facts: dict[str, Cell] = {
        "split": folder.name,
        "images": len(index),
        "expressions": index.num_expressions,
        "shards": len(index.shards),
        "bytes of shards": size,
        **_read_first(folder),
    }
    rows = tuple((entry.name, entry.records, entry.expressions, entry.bytes) for entry in shown)
    table = Table(title="shards", columns=("shard", "images", "expressions", "bytes"), rows=rows)
    return Description(
        path=str(folder),
        kind="split",
        what="one split of prepared shards",
        **measure_folder(folder),
        facts=facts,
        tables=(table,),
        notes=(f"and {rest} more shards",) if rest else (),
    )


def _read_first(folder: Path) -> dict[str, Cell]:
    """The data set, by the first expression."""
    ids: list[str] = []
    # The index says everything else, also where a tar is missing or damaged.
    with contextlib.suppress(IGVGError, OSError), ShardReader(folder.parent, folder.name) as reader:
        ids = [one.id for one in reader.record(0).expressions] if len(reader) else []
    return {"data set": ids[0].split("/")[0]} if ids else {}


def describe_shard(file: Path) -> Description:
    """One tar, from its own records.

    Raises:
        DataError: it is no shard.
    """
    contents = index_shard(file)
    with file.open("rb") as stream:
        kinds: Counter[int] = Counter()
        instances, dataset = 0, ""
        for row in contents.rows:
            stream.seek(row.json_offset)
            record = json.loads(stream.read(row.json_size))
            instances += len(record["instances"])
            kinds.update(min(len(one["instances"]), 2) for one in record["expressions"])
            dataset = dataset or next((str(one["id"]).split("/")[0] for one in record["expressions"]), "")
    entry = contents.entry
    facts: dict[str, Cell] = {
        "data set": dataset,
        "images": entry.records,
        "expressions": entry.expressions,
        **{kind: kinds[number] for number, kind in enumerate(TARGET_KINDS)},
        "instances": instances,
        "SHA-256": entry.sha256,
        "in the index beside it": _compare_with_index(file, entry.sha256),
    }
    return Description(path=str(file), kind="shard", what="one shard (WebDataset)", **measure_file(file), facts=facts)


def _compare_with_index(file: Path, sha256: str) -> str:
    try:
        document = read_json(file.parent / INDEX, "the index of a split")
        entries = {entry["name"]: entry["sha256"] for entry in document["shards"]}
    except (DataError, KeyError, TypeError):
        return "there is none"
    if file.name not in entries:
        return "no"
    return "yes" if entries[file.name] == sha256 else "with another SHA-256: it is damaged, or another"
