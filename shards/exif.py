"""The EXIF orientation of an image file, read also where other parts of the EXIF block are damaged.

Many image files with intact pixels have damaged EXIF blocks. Only the first directory of the block is read here, entry
by entry, so that a damaged tag does not hide the orientation.

Source: Exif 2.32, section 4.6 (tag 0x0112, Orientation); TIFF 6.0, section 2 (directories).
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import warnings
from typing import NamedTuple

from PIL import Image

from shards.image_formats import open_image

UPRIGHT = 1
# Every file with an EXIF block, or with an orientation in an XMP packet, holds one of these.
_MARKS = (b"Exif", b"exif", b"eXIf", b"tiff:Orientation")
_ORIENTATION = 0x0112
_HEADER = b"Exif\x00\x00"
_BYTE_ORDERS = {b"II*\x00": "<", b"MM\x00*": ">"}
# TIFF's value types: bytes of one value, and its format in struct if it is an integer.
_VALUE_TYPES = {
    1: (1, "B"), 2: (1, ""), 3: (2, "H"), 4: (4, "L"), 5: (8, ""), 6: (1, "b"), 7: (1, ""), 8: (2, "h"), 9: (4, "l"),
    10: (8, ""), 11: (4, ""), 12: (8, ""), 13: (4, "L"),
}  # fmt: skip
_RATIONALS = {5: "LL", 10: "ll"}
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([0-9])")


class Orientation(NamedTuple):
    """The rotation and reflection that show a file's pixels upright."""

    value: int
    """1 to 8, as Exif defines them; 1, upright, where none can be read."""
    damage: str = ""
    """What is wrong with the EXIF block, as a clause; empty if nothing is."""


def read_orientation(image: Image.Image) -> Orientation:
    """The orientation of an opened image: that of its EXIF block, or of its XMP packet where the block has none.

    Pillow turns TIFF images itself: they are upright here.
    """
    if hasattr(image, "tag_v2"):
        return Orientation(UPRIGHT)
    value, damage = parse_block(_find_block(image))
    if value is None:
        value = _read_xmp(image)
    return Orientation(value or UPRIGHT, damage or _find_damage(image))


def find_orientation(data: bytes) -> int:
    """The orientation of an image file's bytes, 1 where there is none; most files need not be opened for it."""
    if any(mark in data for mark in _MARKS):
        with (
            contextlib.suppress(Exception),
            warnings.catch_warnings(action="ignore"),
            open_image(io.BytesIO(data)) as image,
        ):
            return read_orientation(image).value
    return UPRIGHT


def parse_block(block: bytes) -> tuple[int | None, str]:
    """The orientation, 1 to 8, that an EXIF block holds, or None; and what is wrong with the block, or nothing."""
    while block.startswith(_HEADER):
        block = block[len(_HEADER) :]
    if not block:
        return None, ""
    order = _BYTE_ORDERS.get(block[:4])
    if order is None:
        return None, "it begins with no TIFF header"
    try:
        (start,) = struct.unpack_from(f"{order}L", block, 4)
        (num_entries,) = struct.unpack_from(f"{order}H", block, start)
    except struct.error:
        return None, "it breaks off before its first directory"
    value, damage = None, ""
    for entry in range(start + 2, start + 2 + 12 * num_entries, 12):
        try:
            tag, value_type, num_values = struct.unpack_from(f"{order}HHL", block, entry)
            offset = _value_offset(block, order, entry, value_type, num_values)
        except struct.error:
            return value, damage or "it breaks off inside its first directory"
        if tag == _ORIENTATION and value is None:
            value, wrong = _read_value(block, order, value_type, offset)
            damage = wrong or damage
        elif offset is None:
            damage = damage or f"its tag 0x{tag:04x} points outside, or is of an unknown type"
    return value, damage


def _value_offset(block: bytes, order: str, entry: int, value_type: int, num_values: int) -> int | None:
    """The offset of an entry's value, which may be in the entry itself; None if it is outside the block."""
    size = _VALUE_TYPES[value_type][0] * num_values if value_type in _VALUE_TYPES else 0
    if size == 0:
        return None
    (offset,) = struct.unpack_from(f"{order}L", block, entry + 8)
    start = entry + 8 if size <= 4 else int(offset)
    return start if start + size <= len(block) else None


def _read_value(block: bytes, order: str, value_type: int, start: int | None) -> tuple[int | None, str]:
    """The first value of the orientation's entry, if it is one of 1 to 8; and what is wrong with it, or nothing."""
    if start is None:
        return None, "its orientation points outside"
    if value_type in _RATIONALS:
        numerator, denominator = struct.unpack_from(order + _RATIONALS[value_type], block, start)
        value = numerator // denominator if denominator and numerator % denominator == 0 else None
    elif _VALUE_TYPES[value_type][1]:
        (value,) = struct.unpack_from(order + _VALUE_TYPES[value_type][1], block, start)
    else:
        value = None
    if value is None or not UPRIGHT <= value <= 8:
        found = "no whole number" if value is None else str(value)
        return None, f"its orientation is {found}, not one of 1 to 8"
    return int(value), ""


def _find_block(image: Image.Image) -> bytes:
    block = image.info.get("exif")
    if isinstance(block, bytes):
        return block
    # ImageMagick's form of EXIF in PNG files, older than the standard chunk.
    profile = image.info.get("Raw profile type exif")
    if isinstance(profile, str):
        try:
            return bytes.fromhex("".join(profile.split("\n")[3:]))
        except ValueError:
            return b""
    return b""


def _read_xmp(image: Image.Image) -> int | None:
    for name in ("XML:com.adobe.xmp", "xmp"):
        packet = image.info.get(name)
        packet = packet.encode(errors="replace") if isinstance(packet, str) else packet
        if isinstance(packet, bytes) and (found := _XMP_ORIENTATION.search(packet)):
            value = int(found[1])
            return value if UPRIGHT <= value <= 8 else None
    return None


def _find_damage(image: Image.Image) -> str:
    """The damage that keeps Pillow from writing the block again."""
    try:
        if image.info.get("exif"):
            image.getexif().tobytes()
    except Exception:  # a parser may raise anything on a damaged block
        return "one of its tags has a value that does not fit its type"
    return ""
