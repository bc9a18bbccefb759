"""Pickles from strangers: read as data, never run.

Only containers, numbers and strings are built. What is left of a pickle's ways to do harm without naming a class, a
memo as large as it says and tuples as deep as it likes, is refused before anything is built.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

from shards.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


class _RefusalError(Exception):
    """The pickle asks for more than data."""


class _DataUnpickler(pickle.Unpickler):
    """Builds containers, numbers and strings."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise _RefusalError(f"it asks for {module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _RefusalError(f"it refers to {pid!r}, an object outside the file")


def load_pickle(file: Path) -> Any:
    """The plain value that a pickle holds; strings of Python 2 are read as Latin-1.

    Raises:
        DataError: the file cannot be read, is no whole pickle, or holds anything but containers, numbers and strings.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=file) from error
    try:
        # Python 2 wrote escapes that today's decoder warns of.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            _refuse_excess(data)
            return _DataUnpickler(io.BytesIO(data), encoding="latin1").load()
    except _RefusalError as error:
        what = f"this pickle is not plain data: {error}; only containers, numbers and strings are read"
        raise DataError(what, file=file, remedy=_REMEDY) from error
    except RecursionError as error:
        raise DataError("this pickle is nested too deep", file=file, remedy=_REMEDY) from error
    # Bytes that are no pickle make the unpickler fail in a dozen ways, all with the same meaning.
    except Exception as error:
        what = f"damaged, cut short or no pickle ({type(error).__name__}: {error})"
        raise DataError(" ".join(what.split()), file=file, remedy="download it again") from error


def _refuse_excess(data: bytes) -> None:
    """Look through the instructions without carrying them out."""
    tuples = 0
    for name, first, last in _walk(data):
        if name in _EXTENSIONS:
            raise _RefusalError("it uses registered extensions")
        if name in _NUMBERING:
            number = int(data[first:last]) if name == "PUT" else int.from_bytes(data[first:last], "little")
            if not 0 <= number <= len(data):
                raise _RefusalError(f"it numbers {number} objects in {len(data)} bytes")
        tuples += name in _TUPLES
    if tuples > _MOST_TUPLES:
        raise _RefusalError(f"it holds {tuples} tuples, and published files none")


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
