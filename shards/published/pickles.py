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
    from pathlib import Path

# Hashing nested tuples recurses in C without a limit; so many nested ones still fit on any stack.
_MOST_TUPLES = 10_000
_TUPLES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"})
# A cached extension would be handed out without asking `find_class`.
_EXTENSIONS = frozenset({"EXT1", "EXT2", "EXT4"})
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
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in ("PUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= len(data):
            raise _RefusalError(f"it numbers {argument} objects in {len(data)} bytes")
        if name in _EXTENSIONS:
            raise _RefusalError("it uses registered extensions")
        tuples += name in _TUPLES
    if tuples > _MOST_TUPLES:
        raise _RefusalError(f"it holds {tuples} tuples, and published files none")
