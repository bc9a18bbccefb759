"""gRefCOCO: a record refers to any number of objects, or to none.

An empty target is published as the annotation -1; some copies also carry a flag `no_target`.
"""

from __future__ import annotations

from shards.annotations.fields import read_flag
from shards.annotations.refer import Record, RefFormat, read_ann_ids
from shards.errors import DataError

NO_TARGET = -1


def read_target(record: Record, sentence: Record) -> tuple[int, ...]:  # noqa: ARG001
    """The record's annotations, the same for all of its sentences.

    Raises:
        DataError: the annotations are malformed, or -1 stands among others.
    """
    empty = read_flag(record, "no_target", default=False)
    if empty and record.get("ann_id") in (None, []):
        return ()
    ann_ids = read_ann_ids(record)
    if NO_TARGET in ann_ids and len(set(ann_ids)) > 1:
        raise DataError(f"ann_id mixes -1, which means no target, with annotations: {list(ann_ids)[:8]}")
    return () if empty or NO_TARGET in ann_ids else ann_ids


REF_FORMAT = RefFormat(("grefs(unc).json", "grefs(unc).p"), read_target)
