"""Raw outputs are kept for a bounded number, size and time, under ids that cannot be guessed."""

from __future__ import annotations

from pipelines.serving.results import KeptResult, ResultStore
from tests.support.drawn_outputs import draw_output

RESULT = KeptResult((draw_output("a", (20, 30), 0),), ("the red star",))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make_store(max_results: int = 3, max_bytes: int = 1 << 30) -> tuple[ResultStore, Clock]:
    clock = Clock()
    return ResultStore(max_results=max_results, max_bytes=max_bytes, max_seconds=10, clock=clock), clock


def test_the_least_recently_used_result_is_dropped_first() -> None:
    store, _ = make_store()
    first, second, *_ = [store.add(RESULT) for _ in range(3)]
    assert store.find(first) is RESULT
    store.add(RESULT)
    assert store.find(second) is None
    assert store.find(first) is RESULT
    assert len(store) == 3


def test_results_are_dropped_when_their_arrays_take_too_much_memory() -> None:
    assert RESULT.num_bytes > 0
    store, _ = make_store(max_bytes=2 * RESULT.num_bytes)
    first, *others = [store.add(RESULT) for _ in range(3)]
    assert store.find(first) is None
    assert all(store.find(other) for other in others)


def test_a_result_that_alone_is_too_large_is_kept_until_the_next() -> None:
    store, _ = make_store(max_bytes=1)
    first = store.add(RESULT)
    assert store.find(first) is RESULT
    second = store.add(RESULT)
    assert store.find(first) is None
    assert store.find(second) is RESULT


def test_a_result_is_dropped_some_time_after_it_was_last_used() -> None:
    store, clock = make_store()
    result_id = store.add(RESULT)
    clock.now = 9
    assert store.find(result_id) is RESULT
    clock.now = 18
    assert store.find(result_id) is RESULT
    clock.now = 29
    assert store.find(result_id) is None
    assert len(store) == 0


def test_a_removed_result_is_gone_and_frees_its_memory() -> None:
    store, _ = make_store(max_bytes=2 * RESULT.num_bytes)
    result_id, kept = store.add(RESULT), store.add(RESULT)
    assert store.remove(result_id)
    assert not store.remove(result_id)
    store.add(RESULT)
    assert store.find(kept) is RESULT


def test_ids_cannot_be_guessed() -> None:
    store, _ = make_store(max_results=200)
    ids = {store.add(RESULT) for _ in range(100)}
    assert len(ids) == 100
    assert all(len(result_id) == 32 for result_id in ids)
