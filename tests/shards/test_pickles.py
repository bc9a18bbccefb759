"""Pickles are data: what they may hold, and everything that is refused."""

from __future__ import annotations

import contextlib
import datetime as dt
import pickle
import pickletools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import DataError
from shards.published.pickles import load_pickle

if TYPE_CHECKING:
    from pathlib import Path


class _Runs:
    """Would touch a file if its pickle were run."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, (self.target, "w"))  # type: ignore[return-value]


class _Pointing(pickle.Pickler):
    def persistent_id(self, obj: object) -> object:
        return "elsewhere" if obj == "out there" else None


def _load(folder: Path, data: bytes) -> object:
    file = folder / "refs(unc).p"
    file.write_bytes(data)
    return load_pickle(file)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4) | st.tuples(inner),
    max_leaves=12,
)


# Before protocol 3 bytes are calls of a codec, and refused.
@given(value=plain, protocol=st.integers(3, 5))
def test_plain_values_come_back_as_they_were(
    value: object, protocol: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert _load(tmp_path_factory.getbasetemp(), pickle.dumps(value, protocol)) == value


@given(data=st.binary(max_size=60))
def test_arbitrary_bytes_give_a_value_or_a_data_error(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    with contextlib.suppress(DataError):
        _load(tmp_path_factory.getbasetemp(), data)


_OPCODES = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]


@given(parts=st.lists(st.sampled_from(_OPCODES) | st.binary(max_size=5) | st.just(b"os\nsystem\n"), max_size=20))
def test_arbitrary_instructions_give_a_value_or_a_data_error(
    parts: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with contextlib.suppress(DataError):
        _load(tmp_path_factory.getbasetemp(), b"".join(parts) + b".")


def test_strings_of_python_2_are_read_as_latin_1(tmp_path: Path) -> None:
    assert _load(tmp_path, b"(lp0\nS'caf\\xe9'\np1\naVcaf\\u00e9\np2\na.") == ["café", "café"]


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    with pytest.raises(DataError, match=r"not plain data: it asks for (io|_io|__builtin__|builtins)\.open"):
        _load(tmp_path, pickle.dumps([_Runs(tmp_path / "ran")], protocol))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [np.int64(3), np.zeros(3), dt.date(2020, 1, 1)], ids=["scalar", "array", "date"])
def test_an_object_of_any_class_is_refused_by_its_name(tmp_path: Path, value: object) -> None:
    with pytest.raises(DataError, match=r"it asks for (numpy|datetime)\..*only containers, numbers and strings"):
        _load(tmp_path, pickle.dumps([value]))


def test_a_reference_to_an_object_outside_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "pointing.p").open("wb") as stream:
        _Pointing(stream).dump(["out there"])
    with pytest.raises(DataError, match="'elsewhere', an object outside the file"):
        load_pickle(tmp_path / "pointing.p")


def test_registered_extensions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="registered extensions"):
        _load(tmp_path, b"\x80\x02\x82\x01.")


def test_a_memo_of_four_billion_entries_is_refused_before_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="numbers 4294967295 objects in 7 bytes"):
        _load(tmp_path, b"Nr\xff\xff\xff\xff.")


def test_tuples_nested_a_million_times_as_a_key_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 1000000 tuples"):
        _load(tmp_path, b"\x80\x02}N" + b"\x85" * 1_000_000 + b"Ns.")


def test_deeply_nested_lists_are_read_without_recursion(tmp_path: Path) -> None:
    assert _load(tmp_path, b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")


@pytest.mark.parametrize("kept", [0, 1, 20, -1])
def test_a_truncated_pickle_is_called_damaged(tmp_path: Path, kept: int) -> None:
    data = pickle.dumps([{"ref_id": 1, "sentences": ["red"]}])
    with pytest.raises(DataError, match=r"damaged, cut short or no pickle.*download it again"):
        _load(tmp_path, data[:kept])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.p: cannot be read \(No such file"):
        load_pickle(tmp_path / "absent.p")
