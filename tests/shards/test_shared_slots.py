"""Arrays that workers hand over in shared memory: as they were, for as long as anything uses them."""

from __future__ import annotations

import mmap
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shards.shared_slots import SharedSlots
from shards.workers import TASKS_AHEAD, map_ordered

start = partial(map_ordered, method="fork", remedy="use fewer", workers=2)


def draw(task: int) -> dict[str, NDArray[np.uint8]]:
    generator = np.random.default_rng(task)
    return {
        "large": generator.integers(0, 256, 90_000, dtype=np.uint8),
        "small": generator.integers(0, 256, 3, dtype=np.uint8),
    }


def assert_drawn(task: int, arrays: dict[str, NDArray[np.uint8]]) -> None:
    for name, expected in draw(task).items():
        np.testing.assert_array_equal(arrays[name], expected)
        assert arrays[name].dtype == expected.dtype


def is_shared(array: NDArray[np.uint8]) -> bool:
    owner: Any = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return isinstance(owner, mmap.mmap)


def test_results_in_shared_memory_are_as_they_were_and_may_be_written_to() -> None:
    with closing(start(draw, range(40), shared_bytes=1 << 20)) as results:
        for task, arrays in enumerate(results):
            assert_drawn(task, arrays)
            assert is_shared(arrays["large"])
            arrays["large"] += 1


def test_results_that_are_kept_stay_as_they_were_also_after_the_workers_have_ended() -> None:
    """More of them than there are slots: the rest is copied."""
    with closing(start(draw, range(40), shared_bytes=1 << 20)) as results:
        kept = list(results)
    assert sum(is_shared(arrays["large"]) for arrays in kept) == 2 * TASKS_AHEAD + 2
    for task, arrays in enumerate(kept):
        assert_drawn(task, arrays)


def test_a_part_of_an_array_keeps_its_slot() -> None:
    with closing(start(draw, range(40), shared_bytes=1 << 20)) as results:
        parts = [arrays["large"][task : task + 5] for task, arrays in enumerate(results)]
    for task, part in enumerate(parts):
        np.testing.assert_array_equal(part, draw(task)["large"][task : task + 5])


@pytest.mark.parametrize("shared_bytes", [0, 80_000])
def test_results_that_do_not_fit_are_copied(shared_bytes: int) -> None:
    with closing(start(draw, range(10), shared_bytes=shared_bytes)) as results:
        for task, arrays in enumerate(results):
            assert_drawn(task, arrays)
            assert not is_shared(arrays["large"])


def test_where_there_is_no_memory_to_share_results_are_copied() -> None:
    with closing(start(draw, range(5), shared_bytes=1 << 60)) as results:
        for task, arrays in enumerate(results):
            assert_drawn(task, arrays)


def test_a_slot_is_free_again_when_nothing_uses_its_arrays() -> None:
    slots = SharedSlots(1, 1000)
    slot = slots.take()
    assert slot is not None
    assert slots.take() is None
    assert slot.write([memoryview(b"abc"), memoryview(b"de")])
    first, second = slot.read([3, 2])
    assert (bytes(first), bytes(second)) == (b"abc", b"de")
    del first
    assert slots.take() is None
    del second
    assert slots.take() is not None


def test_what_is_larger_than_a_slot_is_not_written() -> None:
    slot = SharedSlots(2, 100).take()
    assert slot is not None
    assert not slot.write([memoryview(bytes(60)), memoryview(bytes(40))])
