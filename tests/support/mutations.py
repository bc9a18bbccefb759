"""Changes of files that keep most of their structure: of the values of a document, of pickle opcodes, and of bytes."""

from __future__ import annotations

import copy
import json
import random
import re
import struct
from typing import Any

_DEEP = "nested lists stand here"
_DEPTHS = (30, 400, 900, 100_000)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 8, 70, 71, 2**31, 2**63, 10**30, 0.5, 1e308, float("nan"), float("inf"), "", "7",
    "\n", "../x", "clip/\nframe.png", "\ud800", "\0", "x" * 3000, [], [[]], {}, [-1], [70, -1], [[1, 2]], [[1e7] * 6],
    {"size": [30, 40], "counts": [1200]}, {"size": [30, 40], "counts": "PPPP"}, {"size": [10**9, 10**9], "counts": []},
    -0.0, -1e308, 2**64, -(2**63), 60_000, 10**4000, "/etc/passwd", "..", "a\0b", "\u202e", "🐘" * 100, "1e3", _DEEP,
    [_DEEP], [[0, 0, 10, 0, 10]], [[5, 5] * 4000], {"size": [30, 40], "counts": [0, 0, 1200]},
    {"size": [30, 40], "counts": "\udcff"}, {"size": [40, 30], "counts": [1200]}, {"size": ["30", 40], "counts": [-1]},
    {"a": {"b": []}}, [None], [{}], [[[]]], ["", ""], [0, 0, 0, 0], [1, 2, 3], [float("nan")] * 4, [1e300] * 4, {"": 0},
)  # fmt: skip
TOKENS = (
    b"null", b"NaN", b"1e999", b"-1", b'""', b"[]", b"{}", b"[", b"}", b'"', b",", b"\\ud800", b"\xff", b"\0", b"[[[[",
    b"]", b"(", b"}(", b"t", b"R", b"b", b"0", b"2", b"h\x00", b"q\x01", b"r\xff\xff\xff\xff", b"c__builtin__\nlist\n",
    b"cnumpy\ndtype\n", b"ccollections\nOrderedDict\n", b"\x8c\x03abc", b"B\xff\xff\xff\x7f", b"X\xff\xff\xff\xff",
    b".", b"\r\n", b"\n", b"\xef\xbb\xbf", b"-Infinity", b"00", b"9" * 5000, b"\\u0000", b"true", b"' '", b"=", b"#",
)  # fmt: skip
# Each is followed by an argument that does not fit.
OPCODES = (
    b"(", b")", b"]", b"}", b"\x8f", b"N", b"2", b"0", b"1", b"t", b"l", b"d", b"a", b"e", b"s", b"u", b"b", b"R", b"o",
    b"\x81", b"\x85", b"\x86", b"\x87", b"\x88", b"\x90", b"\x91", b"\x92", b"\x93", b"\x94", b"Q", b"P1\n", b"g0\n",
    b"h\x00", b"j\xff\xff\xff\x7f", b"p1\n", b"p-1\n", b"p99999999999\n", b"q\x01", b"r\xff\xff\xff\x7f", b"\x80\x05",
    b"\x80\xff", b"\x95" + b"\xff" * 8, b"\x8e" + b"\xff" * 8, b"\x96" + struct.pack("<Q", 1 << 40),
    b"\x8d" + struct.pack("<Q", 1 << 62), b"\x8a\xff" + b"\x7f" * 255, b"\x8b\xb8\x0b\0\0" + b"\x7f" * 3000,
    b"\x8b\xff\xff\xff\xff", b"I" + b"9" * 5000 + b"\n", b"L1L\n", b"F1e999\n", b"Fnan\n", b"I01\n", b"S'\\xff'\n",
    b"V\\ud800\n", b"U\x01\xff", b"T\xff\xff\xff\xff", b"X\x03\0\0\0\xed\xa0\x80", b"C\x02ab", b"\x82\x01",
    b"cos\nsystem\n", b"ccollections\nOrderedDict\n", b"cnumpy.core.multiarray\nscalar\n", b"cnumpy\ndtype\n",
    b"i__builtin__\nlist\n", b")" + b"2\x86" * 60, b"]" + b"2(2e" * 3, b"]" * 900 + b"a" * 899,
    b"]" * 50_000 + b"a" * 49_999, b"G" + b"\x7f\xf0" + bytes(6), b".",
)  # fmt: skip
_KEY = re.compile(rb'"(\w+)": ')


def change_value(document: Any, source: random.Random) -> Any:
    """A copy with one to three values replaced, left out, doubled, renamed, added, or exchanged, anywhere."""
    changed = copy.deepcopy(document)
    for _ in range(source.randint(1, 3)):
        places = list(_list_places(changed))
        if not places:
            return changed
        holder, key = source.choice(places)
        action = source.randrange(8)
        if action == 0:
            del holder[key]
        elif action == 1:
            _repeat(holder, key, source)
        elif action == 2:
            other, other_key = source.choice(places)
            holder[key] = copy.deepcopy(other[other_key])
        elif action == 3 and isinstance(holder, dict):
            holder[source.choice((f"{key} ", key.upper(), "id", ""))] = holder.pop(key)
        elif action == 4 and isinstance(holder[key], (int, float)) and abs(holder[key]) < 2**64:
            holder[key] = source.choice((str(holder[key]), -holder[key], holder[key] + 0.5, [holder[key]]))
        else:
            holder[key] = copy.deepcopy(source.choice(VALUES))
    return changed


def encode_json(document: Any, source: random.Random | None = None) -> bytes:
    """JSON, at times with a key given twice; the text that stands for nested lists becomes such."""
    data = json.dumps(document).encode()
    keys = list(_KEY.finditer(data)) if source and not source.randrange(6) else []
    if source and keys:
        found = source.choice(keys)
        data = (
            data[: found.start()]
            + found[0]
            + json.dumps(source.choice(VALUES)).encode()
            + b", "
            + data[found.start() :]
        )
    depth = source.choice(_DEPTHS) if source else 1
    return data.replace(json.dumps(_DEEP).encode(), b"[" * depth + b"]" * depth, 1)


def encode_opcodes(document: Any, *, python2: bool) -> list[bytes]:
    """A pickle as its opcodes: of protocol 2 with the strings of Python 2, or as Python 3 writes them."""
    return [b"\x80\x02" if python2 else b"\x80\x04", *_encode_value(document, python2=python2), b"."]


def encode_text_opcodes(document: Any) -> list[bytes]:
    """A pickle of protocol 0 as its opcodes, with the strings of Python 2."""
    return [*_encode_text_value(document), b"."]


def change_opcodes(opcodes: list[bytes], source: random.Random) -> bytes:
    """A pickle with one to three opcodes left out, doubled, exchanged, replaced, put in, or cut off."""
    changed = list(opcodes)
    for _ in range(source.randint(1, 3)):
        index, other = source.randrange(len(changed)), source.randrange(len(changed))
        action = source.randrange(6)
        if action == 0 and len(changed) > 1:
            del changed[index]
        elif action == 1:
            changed.insert(other, changed[index])
        elif action == 2:
            changed[index], changed[other] = changed[other], changed[index]
        elif action == 3:
            changed[index] = source.choice(OPCODES)
        elif action == 4:
            changed.insert(index, source.choice(OPCODES))
        elif not source.randrange(4):
            del changed[max(1, index) :]
    return b"".join(changed)


def change_bytes(data: bytes, source: random.Random) -> bytes:
    """One to four bytes changed, pieces left out or doubled, tokens put in, or the end cut off; at times recoded."""
    if not source.randrange(40):
        return source.choice((b"", b"\xef\xbb\xbf" + data, data * 2, bytes(len(data)), b" " * 9, _recode(data)))
    for _ in range(source.randint(1, 4)):
        start = source.randrange(len(data) + 1)
        end = min(len(data), start + source.randint(0, 8))
        action = source.randrange(5)
        if action == 0:
            data = data[:start] + bytes([source.randrange(256)]) + data[start + 1 :]
        elif action == 1:
            data = data[:start] + data[end:]
        elif action == 2:
            data = data[:end] + data[start:end] + data[end:]
        elif action == 3:
            data = data[:start] + source.choice(TOKENS) + data[source.choice((start, end)) :]
        elif source.randrange(8) == 0:
            data = data[:start]
    return data


def _recode(data: bytes) -> bytes:
    return data.decode("latin-1").encode("utf-16")


def _repeat(holder: Any, key: Any, source: random.Random) -> None:
    """Double an entry of a list, or make a text or list many times as long."""
    if isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif isinstance(holder[key], (str, list)):
        holder[key] = holder[key] * source.choice((2, 50))


def _list_places(document: Any) -> list[tuple[Any, Any]]:
    if isinstance(document, dict):
        found: list[tuple[Any, Any]] = [(document, key) for key in document]
    elif isinstance(document, list):
        found = [(document, index) for index in range(len(document))]
    else:
        return []
    return found + [place for holder, key in found for place in _list_places(holder[key])]


def _encode_value(value: Any, *, python2: bool) -> list[bytes]:
    if isinstance(value, dict):
        pairs = [part for pair in value.items() for each in pair for part in _encode_value(each, python2=python2)]
        return [b"}", b"(", *pairs, b"u"]
    if isinstance(value, list):
        return [b"]", b"(", *(part for each in value for part in _encode_value(each, python2=python2)), b"e"]
    if isinstance(value, str):
        data = value.encode(errors="surrogatepass")
        return [(b"T" if python2 and value.isascii() else b"X") + struct.pack("<I", len(data)) + data]
    if isinstance(value, bool):
        return [b"I0%d\n" % value if python2 else b"\x88" if value else b"\x89"]
    if isinstance(value, int):
        fits = -(2**31) <= value < 2**31
        return [b"J" + struct.pack("<i", value) if fits else b"L%dL\n" % value]
    return [b"N" if value is None else b"G" + struct.pack(">d", value)]


def _encode_text_value(value: Any) -> list[bytes]:
    if isinstance(value, dict):
        pairs = [[*_encode_text_value(key), *_encode_text_value(each), b"s"] for key, each in value.items()]
        return [b"(d", b"p1\n", *(part for pair in pairs for part in pair)]
    if isinstance(value, list):
        return [b"(l", b"p2\n", *(part for each in value for part in (*_encode_text_value(each), b"a"))]
    if isinstance(value, str):
        return [b"S%b\n" % repr(value.encode(errors="surrogatepass"))[1:].encode(), b"p3\n"]
    if isinstance(value, bool):
        return [b"I0%d\n" % value]
    if isinstance(value, int):
        return [b"I%d\n" % value if abs(value) < 2**31 else b"L%dL\n" % value]
    return [b"N" if value is None else b"F%b\n" % repr(value).encode()]
