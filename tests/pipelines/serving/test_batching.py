"""Expressions wait for the network, go through it in batches, and leave the queue when nobody waits for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from pipelines.data.batch import Example
from pipelines.prediction.raw_output import RawOutput
from pipelines.serving.batching import BatchQueue
from tests.support.drawn_outputs import draw_output


def example(name: str) -> Example:
    return Example(
        id=name, image=np.zeros((4, 4, 3), np.uint8), input_ids=[0, 2], original_size=(4, 4),
        boxes=np.zeros((0, 4), np.float32), masks=np.zeros((0, 0, 0), bool),
    )  # fmt: skip


class Network:
    """Stands before a gate, and notes which examples came together."""

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Semaphore(0)
        self.batches: list[list[str]] = []

    def __call__(self, examples: Sequence[Example]) -> list[RawOutput]:
        self.batches.append([each.id for each in examples])
        self.entered.release()
        assert self.gate.wait(20)
        if any(each.id == "bad" for each in examples):
            raise ValueError("bad")
        return [draw_output(each.id, (4, 4), 0) for each in examples]


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def queue(network: Network) -> Iterator[BatchQueue]:
    queue = BatchQueue(network, batch_size=3)
    yield queue
    network.gate.set()
    queue.close()


def test_what_waits_together_goes_through_the_network_together(queue: BatchQueue, network: Network) -> None:
    first = queue.submit([example("a")])
    assert network.entered.acquire(timeout=20)
    rest = [*queue.submit([example("b"), example("c")]), *queue.submit([example("d"), example("e")])]
    network.gate.set()
    assert [future.result(20).id for future in [*first, *rest]] == ["a", "b", "c", "d", "e"]
    assert network.batches == [["a"], ["b", "c", "d"], ["e"]]
    assert (queue.forward_passes, queue.examples_run) == (3, 5)


def test_what_is_cancelled_while_it_waits_costs_no_forward_pass(queue: BatchQueue, network: Network) -> None:
    first = queue.submit([example("a")])
    assert network.entered.acquire(timeout=20)
    (gone,) = queue.submit([example("gone")])
    (kept,) = queue.submit([example("kept")])
    assert gone.cancel()
    network.gate.set()
    assert first[0].result(20).id == "a"
    assert kept.result(20).id == "kept"
    assert network.batches == [["a"], ["kept"]]


def test_an_example_that_the_network_cannot_take_fails_alone(queue: BatchQueue, network: Network) -> None:
    network.gate.set()
    good, bad, other = queue.submit([example("good"), example("bad"), example("other")])
    assert good.result(20).id == "good"
    assert other.result(20).id == "other"
    with pytest.raises(ValueError, match="bad"):
        bad.result(20)


def test_a_closed_queue_cancels_what_waits(network: Network) -> None:
    queue = BatchQueue(network, batch_size=1)
    running, waiting = queue.submit([example("a"), example("b")])
    assert network.entered.acquire(timeout=20)
    threading.Timer(0.1, network.gate.set).start()
    queue.close()
    assert running.result(20).id == "a"
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        queue.submit([example("c")])
