"""The classes and functions that a pickle of plain data may name: of NumPy's scalars and arrays, and two dictionaries.

None of them is used: replacements build plain numbers, strings, lists and dictionaries from the arguments, and copy no
more than the file has bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from shards.annotations.fields import show_value


class UnsafePickleError(Exception):
    """A pickle that holds more than plain data."""


# Booleans, whole numbers, floats and texts.
_DTYPE_CODE = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f[248]|U\d{1,5})")


class _CallOnly:
    """A replacement that a pickle may call, and whose state it may not set."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickleError("it sets the state of a class that it may only call")


class SafeGlobals:
    """The replacements of the classes and functions that one pickle names.

    Args:
        budget: elements and bytes that may be copied in all: the size of the file.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget

    def find(self, module: str, name: str) -> Callable[..., Any] | None:
        """The replacement of a class or function; None if it is not allowed."""
        module = module.replace("numpy._core", "numpy.core")
        replacements: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "dtype"): _DType,
            ("numpy", "ndarray"): _refuse_call,
            ("numpy.core.multiarray", "scalar"): self._make_scalar,
            ("numpy.core.multiarray", "_reconstruct"): self._reconstruct_array,
            ("numpy.core.numeric", "_frombuffer"): self._array_from_buffer,
            ("_codecs", "encode"): self._encode_latin1,
            ("collections", "OrderedDict"): self._make_dict,
            ("collections", "defaultdict"): self._make_dict,
            # The first protocols write empty bytes as a call of `bytes`.
            ("builtins", "bytes"): lambda: b"",
            ("__builtin__", "bytes"): lambda: b"",
            ("builtins", "list"): _refuse_call,
            ("__builtin__", "list"): _refuse_call,
        }
        call = replacements.get((module, name))
        return call and _CallOnly(call)

    def charge(self, amount: int) -> None:
        """Subtract from the budget.

        Raises:
            UnsafePickleError: it is used up.
        """
        self._budget -= amount
        if self._budget < 0:
            raise UnsafePickleError("it copies more than it holds")

    def read_array(self, data: Any, dtype: np.dtype[Any], count: int) -> list[Any]:
        """The elements of an array as plain values.

        Raises:
            UnsafePickleError: the bytes do not hold `count` elements.
        """
        if isinstance(data, str):
            data = _restore_bytes(data, count * dtype.itemsize)
        if not isinstance(data, (bytes, bytearray)) or len(data) != count * dtype.itemsize:
            raise UnsafePickleError(f"it holds an array whose bytes are not {count} of type {dtype.str}")
        self.charge(len(data))
        values: list[Any] = np.frombuffer(bytes(data), dtype=dtype).tolist() if count else []
        return values

    def _make_scalar(self, dtype: Any, data: Any = b"") -> Any:
        return self.read_array(data, _to_dtype(dtype), 1)[0]

    def _reconstruct_array(self, subtype: Any, shape: Any, dtype: Any) -> _ArrayAsList:  # noqa: ARG002
        return _ArrayAsList(self)

    def _array_from_buffer(self, data: Any, dtype: Any, shape: Any, order: Any = "C") -> list[Any]:  # noqa: ARG002
        return self.read_array(data, _to_dtype(dtype), _count_elements(shape))

    def _encode_latin1(self, text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise UnsafePickleError("it encodes text in another way than bytes are written")
        self.charge(len(text))
        return text.encode("latin-1")

    def _make_dict(self, *arguments: Any) -> dict[Any, Any]:
        pairs = arguments[0] if arguments and isinstance(arguments[0], (list, tuple)) else ()
        self.charge(len(pairs))
        return dict(pairs)


class _DType:
    """A NumPy dtype by its code, such as i8; its state, which follows, is the byte order."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:  # noqa: ARG002
        if not isinstance(code, str) or not _DTYPE_CODE.fullmatch(code):
            raise UnsafePickleError(f"it holds NumPy values of type {show_value(code)}")
        self.code = code

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise UnsafePickleError("it holds NumPy values with fields")
        self.code = order + self.code.lstrip("<>=|")


class _ArrayAsList(list[Any]):
    """A list in place of an array of one dimension; its state, which follows, holds the elements."""

    def __init__(self, safe_globals: SafeGlobals) -> None:
        super().__init__()
        self._globals = safe_globals

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, _, data = state
        self[:] = self._globals.read_array(data, _to_dtype(dtype), _count_elements(shape))


def _to_dtype(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, _DType):
        raise UnsafePickleError("it holds an array without a type")
    return np.dtype(dtype.code)


def _count_elements(shape: Any) -> int:
    if not isinstance(shape, tuple) or len(shape) > 1 or not all(type(side) is int and side >= 0 for side in shape):
        raise UnsafePickleError("it holds an array of several dimensions")
    return math.prod(shape)


def _restore_bytes(text: str, length: int) -> bytes:
    """The bytes of a Python 2 string that was decoded as UTF-8 or, if its length shows this, as Latin-1."""
    return text.encode("latin-1") if len(text) == length else text.encode()


def _refuse_call(*arguments: Any) -> Any:  # noqa: ARG001
    raise UnsafePickleError("it calls a class that it may only name")
