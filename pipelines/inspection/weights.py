"""Weights in safetensors without torch: names, types and shapes from the header, and whether values are finite."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.errors import CheckpointError
from shards.file_kinds import explain_unreadable

_REMEDY = "copy it again"
_BLOCK = 1 << 22
# Type in the file → NumPy's type of the same width, and the bits that are all ones in infinities and NaN.
_FLOATS: dict[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """One tensor of a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """In bytes, from the beginning of the file."""
    size: int
    """In bytes."""

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def read_header(file: Path) -> tuple[list[TensorEntry], dict[str, str]]:
    """The tensors of a file in the order of their bytes, and its metadata; no value is read.

    Raises:
        CheckpointError: it is no safetensors file, or damaged.
    """
    try:
        _check_with_library(file)
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(length))
        metadata = header.pop("__metadata__", {})
        entries = [
            TensorEntry(
                name=name,
                dtype=entry["dtype"],
                shape=tuple(entry["shape"]),
                offset=8 + length + entry["data_offsets"][0],
                size=entry["data_offsets"][1] - entry["data_offsets"][0],
            )
            for name, entry in header.items()
        ]
    except Exception as error:  # the parser raises errors of many kinds
        expected = "weights in safetensors"
        raise CheckpointError(
            str(explain_unreadable(file, expected, error, _REMEDY, kinds=("safetensors",)))
        ) from error
    return sorted(entries, key=lambda entry: entry.offset), metadata


def find_non_finite(file: Path) -> Iterator[tuple[str, int]]:
    """The tensors of a file that hold values which are not finite, and how many values.

    Raises:
        CheckpointError: as `read_header`.
    """
    for entry in read_header(file)[0]:
        if entry.dtype in _FLOATS and entry.elements:
            count = sum(_count_non_finite(block, entry.dtype) for block in _read_blocks(file, entry))
            if count:
                yield entry.name, count


def _check_with_library(file: Path) -> None:
    from safetensors import safe_open

    with safe_open(file, framework="np"):
        pass


def _read_blocks(file: Path, entry: TensorEntry) -> Iterator[NDArray[Any]]:
    dtype = np.dtype(_FLOATS[entry.dtype][0])
    with file.open("rb") as stream:
        stream.seek(entry.offset)
        left = entry.elements
        while left:
            block = np.frombuffer(stream.read(min(left, _BLOCK) * dtype.itemsize), dtype)
            if not len(block):
                return
            left -= len(block)
            yield block


def _count_non_finite(block: NDArray[Any], dtype: str) -> int:
    exponent = block.dtype.type(_FLOATS[dtype][1])
    return int(np.count_nonzero((block & exponent) == exponent))
