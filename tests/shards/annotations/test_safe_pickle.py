"""Pickles are data: what they may hold, and everything that is refused."""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.annotations.safe_pickle import load_pickle
from shards.errors import DataError


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


@given(value=plain, protocol=st.integers(1, 5))
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


def test_strings_of_python_2_are_read_as_utf_8_and_each_that_is_none_as_latin_1(tmp_path: Path) -> None:
    data = b"(lp0\nS'caf\\xc3\\xa9 \\xe2\\x80\\x99'\np1\naVcaf\\u00e9\np2\naS'caf\\xe9 \\xc3\\xa9'\np3\na."
    assert _load(tmp_path, data) == ["café ’", "café", "caf\xe9 \xc3\xa9"]
    assert _load(tmp_path, b"\x80\x02U\x05caf\xc3\xa9.") == "café"


NUMPY = [np.int64(3), np.int32(-7), np.uint8(200), np.float64(0.5), np.float32(2), np.bool_(True), np.str_("café ’")]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_numbers_and_small_arrays_of_numpy_are_read_as_plain_ones(tmp_path: Path, protocol: int) -> None:
    found = _load(tmp_path, pickle.dumps(NUMPY, protocol))
    assert found == [3, -7, 200, 0.5, 2.0, True, "café ’"]
    assert isinstance(found, list)
    assert [type(value) for value in found] == [int, int, int, float, float, bool, str]
    for array in (np.array([1, 2**40, -3]), np.array([], dtype=np.int32), np.array([0.25, 4]), np.array(["a", "bc"])):
        assert _load(tmp_path, pickle.dumps({"ids": array}, protocol)) == {"ids": array.tolist()}


def test_a_number_of_numpy_that_python_2_wrote_is_read(tmp_path: Path) -> None:
    """Bytes of Python 2 arrive as text: those of 43459 are valid UTF-8, those of 255 are not."""
    for data, number in ((b"\xc3\xa9\x00\x00", 43459), (b"\xff\x00\x00\x00", 255)):
        dtype = b"cnumpy\ndtype\n(U\x02i4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        scalar = b"\x80\x02cnumpy.core.multiarray\nscalar\n(" + dtype + b"U\x04" + data + b"tR."
        assert _load(tmp_path, scalar) == number


@pytest.mark.parametrize("protocol", range(6))
def test_ordered_and_default_dictionaries_are_read_as_plain_ones(tmp_path: Path, protocol: int) -> None:
    values = [collections.OrderedDict(a=1, b=[2]), collections.defaultdict(list, {"c": 3})]
    found = _load(tmp_path, pickle.dumps(values, protocol))
    assert found == [{"a": 1, "b": [2]}, {"c": 3}]
    assert isinstance(found, list)
    assert {type(value) for value in found} == {dict}


@pytest.mark.parametrize(
    "value",
    [np.zeros((2, 2)), np.array([{}, []], dtype=object), np.zeros(2, dtype=[("a", "i4")]), np.datetime64("2020-01-01"),
     np.complex64(1)],
    ids=["two dimensions", "objects", "fields", "date", "complex"],
)  # fmt: skip
def test_what_of_numpy_is_no_plain_number_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(DataError, match=r"refs\(unc\)\.p: this pickle is not plain data: it holds"):
        _load(tmp_path, pickle.dumps([value]))


def test_what_a_pickle_may_call_it_cannot_change(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="that it may only call"):
        _load(tmp_path, b"cnumpy\ndtype\n(N}Vcode\nI1\nstb.")
    assert _load(tmp_path, pickle.dumps(np.int64(3))) == 3


def test_calls_copy_no_more_than_the_file_holds(tmp_path: Path) -> None:
    """A list of 100,000 pairs made a dictionary, a thousand times: gigabytes, of a file of 400 kB."""
    pairs = b"]q\x00(" + b"(I1\nI2\nl" * 20_000 + b"e0"
    copies = b"(" + b"ccollections\nOrderedDict\n(h\x00tR" * 1000 + b"l."
    with pytest.raises(DataError, match="copies more than it holds"):
        _load(tmp_path, b"\x80\x02" + pairs + copies)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abab\nsize 71234\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>quota</html>", "is an HTML page"),
        (b'[{"ref_id": 1}]', "is JSON"),
        (b"PK\3\4" + bytes(60), "zip archive"),
        (b"\x1f\x8b\x08" + bytes(60), "is compressed with gzip"),
        (b"", "is an empty file"),
    ],
)
def test_a_file_that_is_something_else_is_told_as_what_it_is(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=rf"refs\(unc\)\.p: .*{words}, not a pickle"):
        _load(tmp_path, data)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    with pytest.raises(DataError, match=r"not plain data: it asks for (io|_io|__builtin__|builtins)\.open"):
        _load(tmp_path, pickle.dumps([_Runs(tmp_path / "ran")], protocol))
    assert not (tmp_path / "ran").exists()


def test_an_object_of_any_class_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it asks for datetime\..*only containers, numbers and strings"):
        _load(tmp_path, pickle.dumps([dt.date(2020, 1, 1)]))


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


_DOUBLED = {
    "copies": b")" + b"2\x86" * 60,
    "memo": b")q\0" + b"".join(b"0(h%ch%ctq%c" % (level, level, level + 1) for level in range(60)),
    "memoized": b")\x94" + b"".join(b"0(h%ch%ct\x94" % (level, level) for level in range(60)),
    "no items": b")p0\n" + b"".join(b"0(g%d\ng%d\nt(ep%d\n" % (level, level, level + 1) for level in range(60)),
    "frozen": b"(\x91\x94" + b"".join(b"0(h%cK\x01th%c\x86(h%cK\x02t\x91\x94" % ((level,) * 3) for level in range(60)),
}


@pytest.mark.parametrize("kind", _DOUBLED)
def test_a_key_of_tuples_that_hold_the_same_tuple_twice_is_refused(kind: str, tmp_path: Path) -> None:
    """Its hash would take 2^60 steps."""
    with pytest.raises(DataError, match="the same tuple several times"):
        _load(tmp_path, b"\x80\x04}" + _DOUBLED[kind] + b"Ns.")


@pytest.mark.parametrize("end", [b"Q.", b"0cnumpy\ndtype\nh%c\x85R." % 60], ids=["reference", "dtype"])
def test_an_error_about_lists_that_hold_the_same_list_twice_is_short(end: bytes, tmp_path: Path) -> None:
    """Written out they would be 2^60 lists."""
    lists = b"]q\0" + b"".join(b"0]q%c(h%ch%ce" % (level + 1, level, level) for level in range(60))
    with pytest.raises(DataError, match=r"not plain data: it (refers to|holds NumPy values of type) ") as error:
        _load(tmp_path, b"\x80\x02" + lists + end)
    assert len(str(error.value)) < 2000


def test_deeply_nested_lists_are_read_without_recursion(tmp_path: Path) -> None:
    assert _load(tmp_path, b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")


@pytest.mark.parametrize("kept", [0, 1, 20, -1])
def test_a_truncated_pickle_is_called_damaged(tmp_path: Path, kept: int) -> None:
    data = pickle.dumps([{"ref_id": 1, "sentences": ["red"]}])
    with pytest.raises(DataError, match=r"is (damaged|an empty file).*(download|copy it) "):
        _load(tmp_path, data[:kept])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.p: no such file"):
        load_pickle(tmp_path / "absent.p")
