"""RefCOCO, RefCOCO+, RefCOCOg and their robust versions R-RefCOCO, R-RefCOCO+, R-RefCOCOg.

A record refers to one object. In the robust versions some of its sentences have an empty target: `exist` is false or 0.
Where `exist` is missing the target exists.
"""

from __future__ import annotations

from shards.annotations.fields import read_flag
from shards.annotations.refer import Record, RefFormat, read_ann_ids

_UNC, _UMD, _GOOGLE = "refs(unc).p", "refs(umd).p", "refs(google).p"


def read_target(record: Record, sentence: Record) -> tuple[int, ...]:
    """The record's annotation, or none if the sentence has an empty target.

    Raises:
        DataError: the annotation or the flag is malformed.
    """
    return read_ann_ids(record) if read_flag(sentence, "exist", default=True) else ()


ANY_SPLIT_BY = RefFormat((_UNC, _UMD, _GOOGLE), read_target)
SPLIT_BY_UNC = RefFormat((_UNC,), read_target)
