"""Refs as REFER and its descendants publish them: a list of records, each a set of objects with its sentences.

The data sets differ in file names and in how a record tells the targets of a sentence; a `RefFormat` holds both.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.annotations.coco import load_json
from shards.annotations.duplicates import UniqueEntries
from shards.annotations.error_collector import ErrorCollector
from shards.annotations.fields import decode_bytes, read_integer, read_text, read_value, show_value, to_integer
from shards.annotations.safe_pickle import load_pickle
from shards.errors import DataError

Record = dict[str, Any]

_SHOWN = 3
# A split is the name of a folder.
SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence; `ann_ids` is empty for an empty target."""

    sent_id: int
    text: str
    ann_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ref:
    """One published record: sentences about the same objects of one image."""

    ref_id: int
    image_id: int
    split: str
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True, slots=True)
class RefFormat:
    """The form in which a data set publishes its refs.

    Attributes:
        files: names of the file of refs, the preferred one first.
        read_target: the annotations that a sentence of a record refers to, none for an empty target; it raises
            DataError where the record contradicts itself.
    """

    files: tuple[str, ...]
    read_target: Callable[[Record, Record], tuple[int, ...]]


def read_refs(ref_format: RefFormat, file: Path, collector: ErrorCollector, splits: Sequence[str] = ()) -> list[Ref]:
    """Read the refs of some splits, or of all, in the order of the file.

    Args:
        ref_format: of the data set.
        file: a list of records as JSON or as a pickle, told apart by its suffix.
        collector: collects records and sentences that cannot be used or repeat the id of another; they are left out.
        splits: names of the splits; none means all.

    Raises:
        DataError: the file cannot be read, is no list of records, or has no such split (names those it has).
    """
    records = load_json(file) if file.suffix == ".json" else load_pickle(file)
    if not isinstance(records, list) or not records:
        what = f"holds {_describe_value(records)}, not a list of references"
        raise DataError(what, file=file, remedy="use the file as it was published")
    known = dict.fromkeys(split for record in records if isinstance(split := _get_text(record, "split"), str))
    for split in splits:
        if split not in known:
            raise DataError(f"has no split {split!r}; there are {', '.join(known) or 'none'}", file=file)
    refs = UniqueEntries[Ref]()
    for index, record in enumerate(records, 1):
        split = _get_text(record, "split")
        if splits and isinstance(split, str) and split not in splits:
            continue
        try:
            ref, errors = _read_ref(ref_format, record)
        except DataError as error:
            collector.add(DataError(error.what, file=file, record=_name_record(record, index)))
            continue
        for kind, unusable in errors:
            name = f"{_name_record(record, index)}, {unusable.record}"
            collector.add(DataError(unusable.what, file=file, record=name), kind)
        if ref.sentences:
            refs.add(ref.ref_id, ref, f"entry {index}")
    refs.drop_differing(collector, file, "ref")
    return list(refs.entries.values())


def _describe_value(value: Any) -> str:
    """A value that is no list, in a few words."""
    if isinstance(value, dict):
        keys = ", ".join(f"{show_value(key):.20}" for key in itertools.islice(value, _SHOWN))
        return f"a dictionary of {len(value)} keys ({keys}{', …' if len(value) > _SHOWN else ''})"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)} entries" if value else f"an empty {type(value).__name__}"
    return f"a value of type {type(value).__name__}"


def read_ann_ids(record: Record) -> tuple[int, ...]:
    """The annotations of a record, published as a list or as a bare number.

    Raises:
        DataError: something else, or none at all.
    """
    value = read_value(record, "ann_id")
    values = value if isinstance(value, (list, tuple)) else [value]
    if not values:
        raise DataError("ann_id is an empty list")
    return tuple(to_integer(each, "ann_id") for each in values)


def check_split_name(split: str) -> None:
    """Refuse a name of a split that cannot be that of its folder, beside artifact.json.

    Raises:
        DataError: it is such a name.
    """
    if not SPLIT_NAME.fullmatch(split) or split.lower().endswith(".json"):
        expected = (
            "give up to 64 of A-Z, a-z, 0-9 and _ + . -, the first one a letter or digit, without .json at its end"
        )
        raise DataError(f"split is {split[:40]!a}, which names no folder; {expected}")


def _read_ref(ref_format: RefFormat, record: Any) -> tuple[Ref, ErrorCollector]:
    """The ref with its usable sentences, and the errors of the others."""
    ref_id, image_id = read_integer(record, "ref_id"), read_integer(record, "image_id")
    split, entries = read_text(record, "split"), read_value(record, "sentences")
    check_split_name(split)
    if not isinstance(entries, (list, tuple)) or not entries:
        raise DataError("has no list of sentences")
    sentences, collector = UniqueEntries[Sentence](), ErrorCollector()
    for index, entry in enumerate(entries):
        try:
            sent_id = _read_sent_id(record, entry, index)
            text = _read_sentence_entry(entry)
        except DataError as error:
            collector.add(DataError(error.what, record=f"sentence number {index + 1}"))
            continue
        sentence = Sentence(sent_id, text, ref_format.read_target(record, entry))
        sentences.add(sent_id, sentence, f"entry {index + 1} of sentences")
    sentences.drop_differing(collector, None, "sentence")
    return Ref(ref_id, image_id, split, tuple(sentences.entries.values())), collector


def _read_sent_id(record: Record, sentence: Any, index: int) -> int:
    """The sentence's own id, else that of the record's list, else its index."""
    if not isinstance(sentence, dict):
        raise DataError(f"a {type(sentence).__name__} where a sentence should be")
    if sentence.get("sent_id") is not None:
        return read_integer(sentence, "sent_id")
    sent_ids = record.get("sent_ids")
    if isinstance(sent_ids, (list, tuple)) and len(sent_ids) == len(record["sentences"]):
        return to_integer(sent_ids[index], "sent_ids")
    return index


def _read_sentence_entry(sentence: Mapping[str, Any]) -> str:
    """The raw text of a sentence; the cleaned text where that is missing or blank."""
    for key in ("raw", "sent"):
        if sentence.get(key) is not None and (text := read_text(sentence, key)).strip():
            return text
    raise DataError("has no text, neither raw nor sent")


def _get_text(record: Any, key: str) -> Any:
    value = record.get(key) if isinstance(record, dict) else None
    return decode_bytes(value) if isinstance(value, bytes) else value


def _name_record(record: Any, index: int) -> str:
    ref_id = _get_text(record, "ref_id")
    return f"ref {show_value(ref_id)}" if isinstance(ref_id, int) else f"reference number {index}"
