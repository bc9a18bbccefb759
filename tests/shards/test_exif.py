"""The orientation mark of damaged EXIF blocks: read where it can be, passed over where it cannot."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from shards.exif import Orientation, parse_block, read_orientation
from tests.support.exif_blocks import ASCII, LONG, ORIENTATION, RATIONAL, SHORT, SLONG, make_block, make_entry

TURNED = make_entry(ORIENTATION, SHORT, 1, struct.pack("<HH", 6, 0))


def open_jpeg(**options: bytes) -> Image.Image:
    stream = io.BytesIO()
    Image.new("RGB", (4, 2)).save(stream, "JPEG", **options)
    return Image.open(stream)


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_all_eight_marks_are_read_in_either_byte_order(order: str, value: int) -> None:
    entry = make_entry(ORIENTATION, SHORT, 1, struct.pack(f"{order}HH", value, 0), order)
    assert parse_block(make_block([entry], order=order)) == (value, "")


@pytest.mark.parametrize(
    ("entry", "tail"),
    [
        (make_entry(ORIENTATION, LONG, 1, struct.pack("<L", 6)), b""),
        (make_entry(ORIENTATION, SHORT, 2, struct.pack("<HH", 6, 3)), b""),
        (make_entry(ORIENTATION, RATIONAL, 1, struct.pack("<L", 26)), struct.pack("<LL", 6, 1)),
    ],
    ids=["of four bytes", "two values", "a fraction"],
)
def test_a_whole_number_of_another_type_is_read(entry: bytes, tail: bytes) -> None:
    assert parse_block(make_block([entry], tail)) == (6, "")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (make_entry(ORIENTATION, SHORT, 1, struct.pack("<HH", 0, 0)), "its orientation is 0, not one of 1 to 8"),
        (make_entry(ORIENTATION, SHORT, 1, struct.pack("<HH", 9, 0)), "its orientation is 9"),
        (make_entry(ORIENTATION, SLONG, 1, struct.pack("<l", -6)), "its orientation is -6"),
        (make_entry(ORIENTATION, ASCII, 2, b"6\0\0\0"), "its orientation is no whole number"),
        (make_entry(ORIENTATION, RATIONAL, 1, struct.pack("<L", 4)), "its orientation is no whole number"),
        (make_entry(ORIENTATION, RATIONAL, 1, struct.pack("<L", 90)), "its orientation points outside"),
        (make_entry(ORIENTATION, SHORT, 0, bytes(4)), "its orientation points outside"),
        (make_entry(ORIENTATION, 99, 1, bytes(4)), "its orientation points outside"),
    ],
)
def test_a_mark_that_is_none_is_not_obeyed_and_said(entry: bytes, words: str) -> None:
    value, damage = parse_block(make_block([entry]))
    assert value is None
    assert damage.startswith(words)


@pytest.mark.parametrize(
    "entry",
    [
        make_entry(0x10E, ASCII, 0xFFFFFFF0, struct.pack("<L", 60)),
        make_entry(0x10F, ASCII, 40, struct.pack("<L", 5000)),
        make_entry(0x10E, 99, 1, bytes(4)),
    ],
    ids=["huge", "beyond the end", "unknown type"],
)
def test_a_damaged_tag_does_not_hide_the_mark_behind_it(entry: bytes) -> None:
    value, damage = parse_block(make_block([entry, TURNED]))
    assert value == 6
    assert "points outside, or is of an unknown type" in damage


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (b"\xff" * 40, "it begins with no TIFF header"),
        (b"II*\0", "it breaks off before its first directory"),
        (b"II*\0" + struct.pack("<L", 0xFFFFFFFF), "it breaks off before its first directory"),
        (make_block([TURNED])[:14], "it breaks off inside its first directory"),
    ],
)
def test_a_block_that_cannot_be_read_has_no_mark(block: bytes, words: str) -> None:
    assert parse_block(block) == (None, words)


def test_a_mark_before_the_end_of_a_cut_block_is_read() -> None:
    assert parse_block(make_block([TURNED, TURNED])[:30]) == (6, "it breaks off inside its first directory")


@pytest.mark.parametrize("block", [b"", b"Exif\0\0"])
def test_an_empty_block_is_no_damage(block: bytes) -> None:
    assert parse_block(block) == (None, "")


def test_a_header_written_twice_is_passed_over() -> None:
    assert parse_block(b"Exif\0\0" * 2 + make_block([TURNED])) == (6, "")


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'


def test_the_mark_of_an_xmp_packet_counts_where_the_block_has_none() -> None:
    assert read_orientation(open_jpeg(xmp=XMP)) == Orientation(8)
    assert read_orientation(open_jpeg(xmp=XMP, exif=b"Exif\0\0" + make_block([TURNED]))) == Orientation(6)
    assert read_orientation(open_jpeg()) == Orientation(1)


@pytest.mark.parametrize(
    ("entries", "tail"),
    [
        ([TURNED, make_entry(0x11A, 10, 1, struct.pack("<L", 38))], struct.pack("<ll", -1, 0)),
        ([TURNED, make_entry(0x11A, ASCII, 3, b"72\0\0")], b""),
        ([TURNED, make_entry(0x11A, SLONG, 1, struct.pack("<l", -1))], b""),
        ([TURNED, make_entry(0x10E, 11, 1, struct.pack("<f", float("nan")))], b""),
    ],
    ids=["negative fraction", "resolution as text", "negative resolution", "text as a float"],
)
def test_a_mark_beside_a_value_of_the_wrong_type_is_read_and_the_damage_said(entries: list[bytes], tail: bytes) -> None:
    image = open_jpeg(exif=b"Exif\0\0" + make_block(entries, tail))
    assert read_orientation(image) == (6, "one of its tags has a value that does not fit its type")


@pytest.mark.parametrize("tags", [{ORIENTATION: 6}, {700: XMP}], ids=["a tag", "an XMP packet"])
def test_pillow_turns_tiff_images_itself(tags: dict[int, int | bytes]) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 2)).save(stream, "TIFF", tiffinfo=tags)
    image = Image.open(stream)
    assert read_orientation(image) == Orientation(1)
    assert image.convert("RGB").size == (2, 4)
