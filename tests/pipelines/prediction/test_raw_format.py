"""A chunk of raw outputs as arrays: every value comes back, and only whole chunks are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.prediction.raw_format import count_expressions, join_bytes, pack_arrays, read_arrays, split_bytes
from shards.errors import DataError
from tests.support.drawn_outputs import draw_output


def test_every_float16_comes_back_from_its_two_bytes() -> None:
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    low, high = split_bytes(values)
    assert low[1, 2] == 2
    assert high[1, 2] == 1
    assert np.array_equal(join_bytes(np.stack((low, high))).view(np.uint16), values.view(np.uint16))


def test_a_written_chunk_is_read_as_the_same_arrays(tmp_path: Path) -> None:
    arrays = pack_arrays([draw_output(f"drawn/{seed}/0", (20, 30 + seed), seed) for seed in range(3)])
    np.savez_compressed(tmp_path / "chunk.npz", **arrays)
    read = read_arrays(tmp_path / "chunk.npz")
    assert read.keys() == arrays.keys()
    assert all(np.array_equal(read[name], array) for name, array in arrays.items())
    assert read["original_sizes"].tolist() == [[20, 30], [20, 31], [20, 32]]
    assert count_expressions(tmp_path / "chunk.npz") == 3


def test_a_chunk_whose_masks_belong_to_no_query_is_refused(tmp_path: Path) -> None:
    arrays = pack_arrays([draw_output("drawn/0/0", (20, 30), 0)])
    np.savez_compressed(tmp_path / "chunk.npz", **arrays | {"mask_owners": arrays["mask_owners"] + 4})
    with pytest.raises(DataError, match="mask_owners is not what igvg writes"):
        read_arrays(tmp_path / "chunk.npz")
