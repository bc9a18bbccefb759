"""The file format of a chunk of raw outputs: its arrays, written, and checked when they are read.

A chunk is a compressed NumPy archive without pickles:

| array | type, shape | |
| --- | --- | --- |
| ids | str (N,) | expressions, in the order of the shards |
| original_sizes | int64 (N, 2) | height, width of the original images |
| picture_size | int64 () | side of the square image that the network saw |
| class_logits, boxes, points | float32 (N, Q, 2), (N, Q, 4), (N, Q, 2) | as in `IGVGOutput` |
| existence_logits | float32 (N, 2) | as in `IGVGOutput` |
| global_mask_logits | uint8 (2, N, H, W) | float16, little-endian: its low bytes, then its high bytes |
| instance_mask_logits | uint8 (2, M, H, W) | likewise, only masks of queries above the index's `mask_floor` |
| mask_owners | int64 (M, 2) | expression in the chunk and query of each of these masks, ascending |
| attention_map | uint8 (N, h, w) | attention of each patch, as in `RawOutput`; chunks of earlier versions lack it |

The high bytes (sign, exponent) of neighboring pixels are alike and compress well when they are stored together: a mask
of 80 × 80 takes about 8 kB.
"""

from __future__ import annotations

import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.prediction.raw_output import FLOAT_FIELDS, RawOutput
from shards.errors import DataError
from shards.file_kinds import explain_unreadable

_NAMES = (
    "ids", "original_sizes", "picture_size", *FLOAT_FIELDS, "global_mask_logits", "instance_mask_logits", "mask_owners",
)  # fmt: skip
_ATTENTION = "attention_map"
_MAX_IMAGE_SIDE = 1 << 15
_REMEDY = "delete it and run igvg predict again"
# A chunk of 128 expressions of the large network takes less than 0.2 GB.
_MAX_BYTES = 1 << 29
# What NumPy and zipfile raise on damaged files.
_ERRORS = (
    OSError, ValueError, KeyError, EOFError, IndexError, TypeError, SyntaxError, AttributeError, OverflowError,
    RecursionError, MemoryError, NotImplementedError, RuntimeError, UnicodeError, struct.error, tokenize.TokenError,
    zlib.error, zipfile.BadZipFile,
)  # fmt: skip


def pack_arrays(outputs: Sequence[RawOutput]) -> dict[str, NDArray[Any]]:
    """The arrays of one chunk; at least one output, all of one network."""
    owners = [[row, query] for row, output in enumerate(outputs) for query in output.mask_queries]
    attention_maps = [output.attention_map for output in outputs if output.attention_map is not None]
    return {
        "ids": np.array([output.id for output in outputs]),
        "original_sizes": np.array([output.original_size for output in outputs], dtype=np.int64),
        "picture_size": np.array(outputs[0].image_size, dtype=np.int64),
        **{name: np.stack([getattr(output, name) for output in outputs]) for name in FLOAT_FIELDS},
        "global_mask_logits": split_bytes(np.stack([output.global_mask_logits for output in outputs])),
        "instance_mask_logits": split_bytes(np.concatenate([output.instance_mask_logits for output in outputs])),
        "mask_owners": np.array(owners, dtype=np.int64).reshape(-1, 2),
        **({_ATTENTION: np.stack(attention_maps)} if len(attention_maps) == len(outputs) else {}),
    }


def unpack_arrays(arrays: Mapping[str, NDArray[Any]]) -> list[RawOutput]:
    """The outputs whose arrays are `arrays`."""
    global_masks, instance_masks = (join_bytes(arrays[name]) for name in ("global_mask_logits", "instance_mask_logits"))
    rows, queries = arrays["mask_owners"].T
    attention_maps = arrays.get(_ATTENTION)
    # Rows ascend, so the masks of one expression are adjacent.
    ends = np.searchsorted(rows, np.arange(len(global_masks) + 1))
    return [
        RawOutput(
            id=str(expression_id),
            original_size=(int(arrays["original_sizes"][row, 0]), int(arrays["original_sizes"][row, 1])),
            image_size=int(arrays["picture_size"]),
            **{name: arrays[name][row] for name in FLOAT_FIELDS},
            global_mask_logits=global_masks[row],
            instance_mask_logits=instance_masks[ends[row] : ends[row + 1]],
            mask_queries=queries[ends[row] : ends[row + 1]],
            attention_map=None if attention_maps is None else attention_maps[row],
        )
        for row, expression_id in enumerate(arrays["ids"])
    ]


def split_bytes(values: NDArray[np.float16]) -> NDArray[np.uint8]:
    """float16 (…) as low bytes and high bytes (2, …)."""
    little_endian = np.ascontiguousarray(values, dtype="<f2")
    return np.moveaxis(little_endian.view(np.uint8).reshape(*values.shape, 2), -1, 0)


def join_bytes(planes: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Low bytes and high bytes (2, …) as float16 (…)."""
    pairs = np.ascontiguousarray(np.moveaxis(planes, 0, -1))
    return pairs.view("<f2")[..., 0].astype(np.float16, copy=False)


def read_arrays(file: Path) -> Mapping[str, NDArray[Any]]:
    """The arrays of a chunk's file.

    Raises:
        DataError: the file is missing, damaged or no chunk; names the first array of a wrong type, shape or value.
    """
    arrays = _load_arrays(file, _NAMES, optional=_ATTENTION)
    if invalid := [name for name, valid in _check_arrays(arrays) if not valid]:
        raise DataError(f"no readable chunk ({invalid[0]} is not what igvg writes)", file=file, remedy=_REMEDY)
    return arrays


def count_expressions(file: Path) -> int:
    """How many expressions a chunk's file holds.

    Raises:
        DataError: the file is missing, damaged or no chunk.
    """
    return len(_load_arrays(file, ("ids",))["ids"])


def _load_arrays(file: Path, names: Sequence[str], *, optional: str = "") -> dict[str, NDArray[Any]]:
    if not file.exists():
        raise DataError("missing", file=file, remedy=_REMEDY)
    try:
        # Opened here: NumPy does not close a file that is no archive.
        with file.open("rb") as content, zipfile.ZipFile(content) as archive:
            if f"{optional}.npy" in archive.namelist():
                names = [*names, optional]
            _check_total_size(archive, names)
            # NumPy warns of headers that look like Python 2's.
            with warnings.catch_warnings(action="ignore"):
                return {name: _read_array(archive, name) for name in names}
    except _ERRORS as error:
        expected = ("NumPy archive", "cut zip", "zip")
        raise explain_unreadable(file, "a chunk of raw outputs", error, _REMEDY, kinds=expected) from error


def _check_total_size(archive: zipfile.ZipFile, names: Sequence[str]) -> None:
    """Refuse arrays that would take more memory than any chunk needs: damaged files, or decompression bombs."""
    total = sum(archive.getinfo(f"{name}.npy").file_size for name in names)
    if total > _MAX_BYTES:
        raise ValueError(f"its arrays take {total} bytes")


def _read_array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """One array; its header is compared with the member's size before memory is allocated."""
    size = archive.getinfo(f"{name}.npy").file_size
    with archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"{name} is of version {version}")
        shape, _, dtype = read_header(stream)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != size - stream.tell():
            raise ValueError(f"{name} is not of the size that it says")
    with archive.open(f"{name}.npy") as stream:
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def _check_arrays(arrays: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, bool]]:
    """Each array's name, and whether its type, shape and values are valid; stops where later checks depend on it."""
    ids, boxes, global_masks, owners = (arrays[name] for name in ("ids", "boxes", "global_mask_logits", "mask_owners"))
    yield "ids", ids.dtype.kind == "U" and ids.ndim == 1
    yield "boxes", boxes.ndim == 3
    yield "global_mask_logits", global_masks.ndim == 4
    if ids.ndim != 1 or boxes.ndim != 3 or global_masks.ndim != 4:
        return
    count, queries, masks = len(ids), boxes.shape[1], len(owners) if owners.ndim else 0
    shapes = {
        "original_sizes": (np.int64, (count, 2)),
        "picture_size": (np.int64, ()),
        "class_logits": (np.float32, (count, queries, 2)),
        "boxes": (np.float32, (count, queries, 4)),
        "points": (np.float32, (count, queries, 2)),
        "existence_logits": (np.float32, (count, 2)),
        "global_mask_logits": (np.uint8, (2, count, *global_masks.shape[2:])),
        "instance_mask_logits": (np.uint8, (2, masks, *global_masks.shape[2:])),
        "mask_owners": (np.int64, (masks, 2)),
    }
    if (maps := arrays.get(_ATTENTION)) is not None:
        yield _ATTENTION, maps.dtype == np.uint8 and maps.ndim == 3 and len(maps) == count and 0 not in maps.shape[1:]
    for name, (dtype, shape) in shapes.items():
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            yield name, False
            return
        if name in FLOAT_FIELDS:
            yield name, bool(np.isfinite(array).all())
        elif array.dtype == np.uint8:
            yield name, bool(array.size or not shape[1]) and bool(np.isfinite(join_bytes(array)).all())
    for name in ("original_sizes", "picture_size"):
        yield name, bool(((arrays[name] > 0) & (arrays[name] <= _MAX_IMAGE_SIDE)).all())
    positions = owners[:, 0] * queries + owners[:, 1]
    inside = (owners >= 0) & (owners < (count, queries))
    yield "mask_owners", bool(inside.all() and (np.diff(positions) > 0).all())
