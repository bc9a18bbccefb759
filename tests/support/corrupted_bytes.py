"""JSON with a few bytes changed, as files come from broken disks and from strangers."""

from __future__ import annotations

import random

TOKENS = (
    b"null", b"NaN", b"Infinity", b"-1", b"1e999", b"99999999999999999999", b"true", b'""', b"[]", b"{}", b"[", b"}",
    b'"', b",", b"\\u0000", b"\\ud800", b"\xff", b"\x00", b"3.5", b'"size"', b'"counts"', b"[[[[",
)  # fmt: skip


def corrupt(text: bytes, source: random.Random) -> bytes:
    """One to three changes: a byte, a piece left out, doubled or moved, a token put in or in place of a value."""
    for _ in range(source.randint(1, 3)):
        start = source.randrange(len(text) + 1)
        end = min(len(text), start + source.randint(0, 6))
        piece = text[start:end]
        change = source.randrange(5)
        if change == 0:
            text = text[:start] + bytes([source.randrange(256)]) + text[start + 1 :]
        elif change == 1:
            text = text[:start] + text[end:]
        elif change == 2:
            text = text[:end] + piece + text[end:]
        elif change == 3:
            text = text[:start] + source.choice(TOKENS) + text[end:]
        else:
            place = source.randrange(len(text) + 1)
            text = text[:place] + piece + text[place:]
    return text
