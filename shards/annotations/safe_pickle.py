"""Reads pickles of unknown origin as data, without running code from them.

Only containers, numbers and strings are built; NumPy's scalars and small arrays become such, too. Before that, pickles
are refused that could exhaust memory, the stack or any time without naming a class: by large memo indices, by nested
tuples, or by tuples that hold the same tuple twice, whose hash takes twice as long with each level.
"""

from __future__ import annotations

import codecs
import io
import pickle
import pickletools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import Buffer

from shards.annotations.fields import decode_bytes, show_value
from shards.annotations.numpy_pickle import SafeGlobals, UnsafePickleError
from shards.errors import DataError, to_line
from shards.file_kinds import explain_unreadable
from shards.files import read_input

# Hashing nested tuples recurses in C without a limit; this depth still fits on any stack.
_MAX_TUPLES = 10_000
_TUPLE_OPCODES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"})
# A cached extension is returned without a call of `find_class`.
_EXTENSION_OPCODES = frozenset({"EXT1", "EXT2", "EXT4"})
_MEMO_OPCODES = frozenset({"PUT", "LONG_BINPUT"})
_PUT_OPCODES = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GET_OPCODES = frozenset({"GET", "BINGET", "LONG_BINGET"})
# What these leave on the stack is no tuple.
_OTHER_VALUES = frozenset(
    {
        "EMPTY_LIST", "LIST", "EMPTY_DICT", "DICT", "EMPTY_SET", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE",
        "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
        "GLOBAL", "STACK_GLOBAL", "REDUCE",
    }
)  # fmt: skip
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_LENGTH_WIDTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_REMEDY = "use the file as it was published"
_EXPECTED, _DOWNLOAD = "a pickle", "download the published file again"
_MAX_REASON_LENGTH = 120
_ENCODING = "igvg_utf_8_or_latin_1"


class _DataUnpickler(pickle.Unpickler):
    """Builds containers, numbers and strings."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding=_ENCODING)
        self._globals = SafeGlobals(len(data))

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        found = self._globals.find(module_name, global_name)
        if found is None:
            raise UnsafePickleError(f"it asks for {to_line(f'{module_name}.{global_name}')}")
        return found

    def persistent_load(self, pid: Any) -> NoReturn:
        raise UnsafePickleError(f"it refers to {show_value(pid)}, an object outside the file")


def load_pickle(file: Path) -> Any:
    """The plain value of a pickle; strings of Python 2 are decoded as UTF-8, or as Latin-1 if they are no UTF-8.

    Raises:
        DataError: the file cannot be read, is no whole pickle, or holds anything but containers, numbers and strings;
            the content of a file of another kind is described.
    """
    try:
        data = read_input(file)
    except OSError as error:
        raise explain_unreadable(file, _EXPECTED, error, _DOWNLOAD) from error
    try:
        # Python 2 wrote escapes that the decoder of Python 3 warns of.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            _check_opcodes(data)
            return _DataUnpickler(data).load()
    except UnsafePickleError as error:
        what = f"this pickle is not plain data: {error}; only containers, numbers and strings are read"
        raise DataError(what, file=file, remedy=_REMEDY) from error
    except RecursionError as error:
        raise DataError("this pickle is nested too deep", file=file, remedy=_REMEDY) from error
    # The unpickler raises a dozen kinds of errors for bytes that are no pickle.
    except Exception as error:
        raise explain_unreadable(file, _EXPECTED, _describe_error(error), _DOWNLOAD, kinds=("pickle",)) from error


def _describe_error(error: Exception) -> str:
    return to_line(" ".join(f"{type(error).__name__}: {error}".split()), _MAX_REASON_LENGTH)


def _decode_python2_string(data: Buffer, errors: str = "strict", /) -> tuple[str, int]:  # noqa: ARG001
    """Decode a string of Python 2, whose encoding is not known."""
    content = bytes(data)
    return decode_bytes(content), len(content)


def _find_codec(name: str) -> codecs.CodecInfo | None:
    return codecs.CodecInfo(codecs.utf_8_encode, _decode_python2_string, name=_ENCODING) if name == _ENCODING else None


# The unpickler takes encodings by name only.
codecs.register(_find_codec)


def _check_opcodes(data: bytes) -> None:
    """Check a pickle's opcodes without running them.

    Raises:
        UnsafePickleError: it uses extensions, a memo index beyond its size, too many tuples, or one several times.
    """
    tuples = 0
    for name, first, last in _iterate_opcodes(data):
        if name in _EXTENSION_OPCODES:
            raise UnsafePickleError("it uses registered extensions")
        if name in _MEMO_OPCODES:
            index = int(data[first:last]) if name == "PUT" else int.from_bytes(data[first:last], "little")
            if not 0 <= index <= len(data):
                raise UnsafePickleError(f"it numbers {index} objects in {len(data)} bytes")
        tuples += name in _TUPLE_OPCODES
    if tuples > _MAX_TUPLES:
        raise UnsafePickleError(f"it holds {tuples} tuples, and published files none")
    if tuples and _shares_tuples(data):
        raise UnsafePickleError("it holds the same tuple several times, and published files none")


def _shares_tuples(data: bytes) -> bool:
    """Whether a pickle may hold one tuple in several places: by copying the stack's top, or a memo that may be one."""
    previous = ""
    indices, tuples = set[int](), set[int]()
    for name, first, last in _iterate_opcodes(data):
        if name == "DUP":
            return True
        if name in _PUT_OPCODES or name in _GET_OPCODES:
            argument = data[first:last]
            index = int(argument) if name in ("PUT", "GET") else int.from_bytes(argument, "little")
            if name in _GET_OPCODES and index in tuples:
                return True
            if name in _PUT_OPCODES:
                index = len(indices) if name == "MEMOIZE" else index
                indices.add(index)
                tuples |= set() if previous in _OTHER_VALUES else {index}
        previous = name
    return False


def _iterate_opcodes(data: bytes) -> Iterator[tuple[str, int, int]]:
    """The name of each opcode, and where its argument begins and ends.

    `pickletools.genops` also decodes the arguments, and fails at Python 2 strings beyond ASCII.
    """
    position = 0
    while True:
        opcode = _OPCODES[data[position]]
        first = position + 1
        length = 0 if opcode.arg is None else opcode.arg.n
        if length == pickletools.UP_TO_NEWLINE:
            last = data.index(b"\n", first) + 1
            # These two hold a module and a name.
            position = data.index(b"\n", last) + 1 if opcode.name in ("GLOBAL", "INST") else last
        else:
            # A negative length means that the argument begins with its own.
            width = _LENGTH_WIDTHS.get(length, 0)
            size = width + int.from_bytes(data[first : first + width], "little") if width else length
            last = position = first + size
        yield opcode.name, first, last
        if opcode.name == "STOP":
            return
