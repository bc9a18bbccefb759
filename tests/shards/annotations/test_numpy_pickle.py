"""Stand-ins for what pickles name: plain values of NumPy's bytes, and never more than the file holds."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from shards.annotations.numpy_pickle import SafeGlobals, UnsafePickleError


def rebuild(kind: Any, *arguments: Any, budget: int = 100) -> Any:
    """What stands for the call with which a value is pickled, called."""
    function = SafeGlobals(budget).find(*kind)
    assert function is not None
    return function(*arguments)


def test_a_pickled_type_and_its_bytes_are_plain_numbers() -> None:
    types = SafeGlobals(100)
    kind = types.find("numpy", "dtype")
    scalar = types.find("numpy._core.multiarray", "scalar")
    assert kind is not None
    assert scalar is not None
    found = scalar(kind("i8", False, True), np.int64(-7).tobytes())
    assert (found, type(found)) == (-7, int)


def test_more_bytes_than_the_file_holds_are_refused() -> None:
    with pytest.raises(UnsafePickleError, match="it copies more than it holds"):
        rebuild(("_codecs", "encode"), "x" * 101, "latin1")
    assert rebuild(("_codecs", "encode"), "é", "latin1") == b"\xe9"


@pytest.mark.parametrize("code", ["O", "V8", "i8,i8", "M8[s]"])
def test_types_of_anything_but_numbers_and_texts_are_refused(code: str) -> None:
    with pytest.raises(UnsafePickleError, match="it holds NumPy values of type"):
        rebuild(("numpy", "dtype"), code)


@pytest.mark.parametrize("name", [("numpy", "ndarray"), ("builtins", "list")])
def test_what_may_only_be_named_is_not_called(name: tuple[str, str]) -> None:
    with pytest.raises(UnsafePickleError, match="may only name"):
        rebuild(name)


@pytest.mark.parametrize("function", [eval, pickle.loads, np.load])
def test_functions_are_not_found(function: Any) -> None:
    assert SafeGlobals(100).find(function.__module__, function.__name__) is None
