"""Pickles from strangers: read as data, never run.

Only containers, numbers and strings are built; NumPy's numbers and small arrays become such, too. What is left of a
pickle's ways to do harm without naming a class, a memo as large as it says and tuples as deep as it likes, is refused
before anything is built.
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

from shards.annotations.fields import decode_bytes
from shards.annotations.numpy_pickle import PlainTypes, UnsafePickleError
from shards.errors import DataError
from shards.file_kinds import explain_unreadable

# Hashing nested tuples recurses in C without a limit; so many nested ones still fit on any stack.
_MOST_TUPLES = 10_000
_TUPLES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"})
# A cached extension would be handed out without asking `find_class`.
_EXTENSIONS = frozenset({"EXT1", "EXT2", "EXT4"})
_NUMBERING = frozenset({"PUT", "LONG_BINPUT"})
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_LENGTH_WIDTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_REMEDY = "use the file as it was published"
_WANTED, _AGAIN = "a pickle", "download the published file again"
_LONGEST_REASON = 120
_ENCODING = "igvg_utf_8_or_latin_1"


class _DataUnpickler(pickle.Unpickler):
    """Builds containers, numbers and strings."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding=_ENCODING)
        self._types = PlainTypes(len(data))

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        found = self._types.find(module_name, global_name)
        if found is None:
            raise UnsafePickleError(f"it asks for {module_name}.{global_name}")
        return found

    def persistent_load(self, pid: Any) -> NoReturn:
        raise UnsafePickleError(f"it refers to {pid!r}, an object outside the file")


def load_pickle(file: Path) -> Any:
    """The plain value that a pickle holds; strings of Python 2 are read as UTF-8, those that are none as Latin-1.

    Raises:
        DataError: the file cannot be read, is no whole pickle, or holds anything but containers, numbers and strings;
            a file of another kind is told by its content.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise explain_unreadable(file, _WANTED, error, _AGAIN) from error
    try:
        # Python 2 wrote escapes that today's decoder warns of.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            _refuse_excess(data)
            return _DataUnpickler(data).load()
    except UnsafePickleError as error:
        what = f"this pickle is not plain data: {error}; only containers, numbers and strings are read"
        raise DataError(what, file=file, remedy=_REMEDY) from error
    except RecursionError as error:
        raise DataError("this pickle is nested too deep", file=file, remedy=_REMEDY) from error
    # Bytes that are no pickle make the unpickler fail in a dozen ways, all with the same meaning.
    except Exception as error:
        raise explain_unreadable(file, _WANTED, _describe(error), _AGAIN, sound=("pickle",)) from error


def _describe(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_REASON]


def _decode(data: Buffer, errors: str = "strict", /) -> tuple[str, int]:  # noqa: ARG001
    """A string of Python 2, which does not say its encoding."""
    content = bytes(data)
    return decode_bytes(content), len(content)


def _find_codec(name: str) -> codecs.CodecInfo | None:
    return codecs.CodecInfo(codecs.utf_8_encode, _decode, name=_ENCODING) if name == _ENCODING else None


# The unpickler knows encodings by their names only.
codecs.register(_find_codec)


def _refuse_excess(data: bytes) -> None:
    """Look through the instructions without carrying them out."""
    tuples = 0
    for name, first, last in _walk(data):
        if name in _EXTENSIONS:
            raise UnsafePickleError("it uses registered extensions")
        if name in _NUMBERING:
            number = int(data[first:last]) if name == "PUT" else int.from_bytes(data[first:last], "little")
            if not 0 <= number <= len(data):
                raise UnsafePickleError(f"it numbers {number} objects in {len(data)} bytes")
        tuples += name in _TUPLES
    if tuples > _MOST_TUPLES:
        raise UnsafePickleError(f"it holds {tuples} tuples, and published files none")


def _walk(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Each instruction's name, and where its argument begins and ends.

    `pickletools.genops` also decodes the arguments, and stumbles over Python 2's strings beyond ASCII.
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
