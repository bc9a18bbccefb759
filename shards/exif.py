"""The orientation mark of an image file, read without trusting the rest of its EXIF block.

Cameras, editors and copies leave damaged blocks in files whose pixels are sound. Only the first directory of the block
is read here, entry by entry, so that one damaged tag does not hide another.

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

UPRIGHT = 1
# One of them is in every file with an EXIF block or an XMP packet that knows of orientation.
_MARKS = (b"Exif", b"exif", b"eXIf", b"tiff:Orientation")
_ORIENTATION = 0x0112
_HEADER = b"Exif\x00\x00"
_ORDERS = {b"II*\x00": "<", b"MM\x00*": ">"}
# By TIFF's number of a type: bytes of one value, and how struct reads it where it is a whole number.
_TYPES = {
    1: (1, "B"), 2: (1, ""), 3: (2, "H"), 4: (4, "L"), 5: (8, ""), 6: (1, "b"), 7: (1, ""), 8: (2, "h"), 9: (4, "l"),
    10: (8, ""), 11: (4, ""), 12: (8, ""), 13: (4, "L"),
}  # fmt: skip
_RATIONALS = {5: "LL", 10: "ll"}
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([0-9])")


class Orientation(NamedTuple):
    """How the pixels of a file are to be turned to show the image upright."""

    value: int
    """1 to 8, as Exif defines them; 1, upright, where there is no readable mark."""
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
    """The orientation of an image file's bytes; 1 where there is none. Most files are not opened for it."""
    if any(mark in data for mark in _MARKS):
        with (
            contextlib.suppress(Exception),
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(data)) as image,
        ):
            return read_orientation(image).value
    return UPRIGHT


def parse_block(block: bytes) -> tuple[int | None, str]:
    """The orientation, 1 to 8, that an EXIF block holds, or None; and what is wrong with the block, or nothing."""
    while block.startswith(_HEADER):
        block = block[len(_HEADER) :]
    if not block:
        return None, ""
    order = _ORDERS.get(block[:4])
    if order is None:
        return None, "it begins with no TIFF header"
    try:
        (start,) = struct.unpack_from(f"{order}L", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
    except struct.error:
        return None, "it breaks off before its first directory"
    value, damage = None, ""
    for place in range(start + 2, start + 2 + 12 * count, 12):
        try:
            tag, kind, number = struct.unpack_from(f"{order}HHL", block, place)
            inside = _locate_value(block, order, place, kind, number)
        except struct.error:
            return value, damage or "it breaks off inside its first directory"
        if tag == _ORIENTATION and value is None:
            value, wrong = _read_value(block, order, kind, inside)
            damage = wrong or damage
        elif inside is None:
            damage = damage or f"its tag 0x{tag:04x} points outside, or is of an unknown type"
    return value, damage


def _locate_value(block: bytes, order: str, place: int, kind: int, number: int) -> int | None:
    """Where the value of an entry begins: in the entry itself or at its offset; None where it is not in the block."""
    size = _TYPES[kind][0] * number if kind in _TYPES else 0
    if size == 0:
        return None
    (offset,) = struct.unpack_from(f"{order}L", block, place + 8)
    start = place + 8 if size <= 4 else int(offset)
    return start if start + size <= len(block) else None


def _read_value(block: bytes, order: str, kind: int, start: int | None) -> tuple[int | None, str]:
    """The first value of the orientation's entry, if it is one of 1 to 8; and what is wrong with it, or nothing."""
    if start is None:
        return None, "its orientation points outside"
    if kind in _RATIONALS:
        above, below = struct.unpack_from(order + _RATIONALS[kind], block, start)
        value = above // below if below and above % below == 0 else None
    elif _TYPES[kind][1]:
        (value,) = struct.unpack_from(order + _TYPES[kind][1], block, start)
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
    # How ImageMagick wrote EXIF into PNG files before they had a place for it.
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
    """What Pillow cannot write again it has not understood."""
    try:
        if image.info.get("exif"):
            image.getexif().tobytes()
    except Exception:  # whatever a parser raises on a stranger's block
        return "one of its tags has a value that does not fit its type"
    return ""
