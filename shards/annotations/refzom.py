"""Ref-ZOM: a record refers to zero, one or many objects, as its `source` says.

The annotations of a record of source "zero" are ignored.
"""

from __future__ import annotations

from shards.annotations.fields import read_text
from shards.annotations.refer import Record, RefFormat, read_ann_ids


def read_target(record: Record, sentence: Record) -> tuple[int, ...]:  # noqa: ARG001
    """The record's annotations, the same for all of its sentences; none where the source is "zero".

    Raises:
        DataError: the source or the annotations are malformed.
    """
    if record.get("source") is not None and read_text(record, "source") == "zero":
        return ()
    return read_ann_ids(record)


# The authors' loader reads the first name, their release has the second, others renamed it.
REF_FORMAT = RefFormat(("refs(final).p", "Ref-ZOM(final).p", "Ref_ZOM.p"), read_target)
