"""EXIF blocks byte by byte, as no library would write them."""

from __future__ import annotations

import struct

ORIENTATION = 0x0112
ASCII, SHORT, LONG, RATIONAL, SLONG = 2, 3, 4, 5, 9


def make_entry(tag: int, kind: int, count: int, value: bytes, order: str = "<") -> bytes:
    """An entry of a directory; `value` are the last four bytes, a value or its offset in the block."""
    return struct.pack(f"{order}HHL", tag, kind, count) + value


def make_block(entries: list[bytes], tail: bytes = b"", order: str = "<") -> bytes:
    """A block of one directory; `tail` begins at byte 14 + 12 × entries."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}LH", 8, len(entries))
    return head + b"".join(entries) + struct.pack(f"{order}L", 0) + tail
