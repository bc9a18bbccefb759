"""What pickles of plain data may ask for beside containers: NumPy's numbers and small arrays, and two kinds of dict.

Nothing of NumPy's or of `collections` is built: these stand-ins make numbers, strings, lists and dictionaries of the
arguments, and never more of them than the file has bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np


class UnsafePickleError(Exception):
    """A pickle asks for more than data."""


# Booleans, whole numbers, floats and texts.
_TYPE = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f[248]|U\d{1,5})")


class _Named:
    """What a pickle names: it may be called, and nothing of it may be changed."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickleError("it changes what it only may call")


class PlainTypes:
    """Stand-ins for what a pickle names, for one pickle.

    Args:
        budget: elements and bytes that may be copied altogether: the size of the file.
    """

    def __init__(self, budget: int) -> None:
        self._left = budget

    def find(self, module: str, name: str) -> Callable[..., Any] | None:
        """What takes the place of a class or function; None for one that is not allowed."""
        module = module.replace("numpy._core", "numpy.core")
        found: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "dtype"): _Type,
            ("numpy", "ndarray"): _refuse,
            ("numpy.core.multiarray", "scalar"): self._make_number,
            ("numpy.core.multiarray", "_reconstruct"): self._begin_array,
            ("numpy.core.numeric", "_frombuffer"): self._make_array,
            ("_codecs", "encode"): self._encode,
            ("collections", "OrderedDict"): self._make_dict,
            ("collections", "defaultdict"): self._make_dict,
            ("builtins", "bytes"): self._make_bytes,
            ("__builtin__", "bytes"): self._make_bytes,
            ("builtins", "list"): _refuse,
            ("__builtin__", "list"): _refuse,
        }
        call = found.get((module, name))
        return call and _Named(call)

    def spend(self, amount: int) -> None:
        """Count what is copied.

        Raises:
            UnsafePickleError: it is more than the file can hold.
        """
        self._left -= amount
        if self._left < 0:
            raise UnsafePickleError("it copies more than it holds")

    def read(self, data: Any, code: np.dtype[Any], count: int) -> list[Any]:
        """Plain values of an array's bytes.

        Raises:
            UnsafePickleError: the bytes are not of so many elements.
        """
        if isinstance(data, str):
            data = _restore_bytes(data, count * code.itemsize)
        if not isinstance(data, (bytes, bytearray)) or len(data) != count * code.itemsize:
            raise UnsafePickleError(f"it holds an array whose bytes are not {count} of type {code.str}")
        self.spend(len(data))
        values: list[Any] = np.frombuffer(bytes(data), dtype=code).tolist() if count else []
        return values

    def _make_number(self, kind: Any, data: Any = b"") -> Any:
        return self.read(data, _resolve(kind), 1)[0]

    def _begin_array(self, kind: Any, shape: Any, code: Any) -> _Array:  # noqa: ARG002
        return _Array(self)

    def _make_array(self, data: Any, kind: Any, shape: Any, order: Any = "C") -> list[Any]:  # noqa: ARG002
        return self.read(data, _resolve(kind), _count_elements(shape))

    def _encode(self, text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise UnsafePickleError("it encodes text in another way than bytes are written")
        self.spend(len(text))
        return text.encode("latin-1")

    def _make_bytes(self) -> bytes:
        """How the first protocols write that there are none."""
        return b""

    def _make_dict(self, *arguments: Any) -> dict[Any, Any]:
        pairs = arguments[0] if arguments and isinstance(arguments[0], (list, tuple)) else ()
        self.spend(len(pairs))
        return dict(pairs)


class _Type:
    """A NumPy type by its code, such as i8; the byte order follows as its state."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:  # noqa: ARG002
        if not isinstance(code, str) or not _TYPE.fullmatch(code):
            raise UnsafePickleError(f"it holds NumPy values of type {code!r:.40}")
        self.code = code

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise UnsafePickleError("it holds NumPy values with fields")
        self.code = order + self.code.lstrip("<>=|")


class _Array(list[Any]):
    """An array of one dimension as a list; its state follows."""

    def __init__(self, types: PlainTypes) -> None:
        super().__init__()
        self._types = types

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, _, data = state
        self[:] = self._types.read(data, _resolve(kind), _count_elements(shape))


def _resolve(kind: Any) -> np.dtype[Any]:
    if not isinstance(kind, _Type):
        raise UnsafePickleError("it holds an array without a type")
    return np.dtype(kind.code)


def _count_elements(shape: Any) -> int:
    if not isinstance(shape, tuple) or len(shape) > 1 or not all(type(side) is int and side >= 0 for side in shape):
        raise UnsafePickleError("it holds an array of several dimensions")
    return math.prod(shape)


def _restore_bytes(text: str, length: int) -> bytes:
    """The bytes that Python 2 wrote as a string, which was then read as UTF-8, or as Latin-1 where it is none."""
    return text.encode("latin-1") if len(text) == length else text.encode()


def _refuse(*arguments: Any) -> Any:  # noqa: ARG001
    raise UnsafePickleError("it calls what is only to be named")
