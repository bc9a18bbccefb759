"""Expressions of several requests, which wait for the one network and go through it in batches.

An expression that is cancelled before its batch begins costs no forward pass.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from pipelines.data.batch import Example
from pipelines.prediction.raw_output import RawOutput


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    example: Example
    future: Future[RawOutput] = field(default_factory=Future)


class BatchQueue:
    """A thread that runs a network over what waits, first come, first served.

    Args:
        forward: the raw outputs of some examples, in order.
        batch_size: examples in one call at most.
    """

    def __init__(self, forward: Callable[[Sequence[Example]], Sequence[RawOutput]], batch_size: int) -> None:
        self.forward_passes = 0
        self.examples_run = 0
        self._forward, self._batch_size = forward, batch_size
        self._jobs: deque[_Job] = deque()
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    def submit(self, examples: Sequence[Example]) -> list[Future[RawOutput]]:
        """A future for each example; cancelling it takes the example out of the queue."""
        jobs = [_Job(example) for example in examples]
        with self._changed:
            if self._closed:
                raise RuntimeError("the queue is closed")
            self._jobs.extend(jobs)
            self._changed.notify()
        return [job.future for job in jobs]

    @property
    def num_waiting(self) -> int:
        """Examples that are in no batch yet, cancelled ones among them."""
        return len(self._jobs)

    def close(self) -> None:
        """Cancel what waits, and return when the batch in progress has ended."""
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.future.cancel()
            self._jobs.clear()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (batch := self._take_batch()) is not None:
            self._run_batch(batch)

    def _take_batch(self) -> list[_Job] | None:
        """The next examples that still wait, at least one; None when the queue is closed."""
        batch: list[_Job] = []
        with self._changed:
            while not batch:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return None
                while self._jobs and len(batch) < self._batch_size:
                    job = self._jobs.popleft()
                    if job.future.set_running_or_notify_cancel():
                        batch.append(job)
        return batch

    def _run_batch(self, batch: list[_Job]) -> None:
        try:
            self.forward_passes += 1
            outputs = self._forward([job.example for job in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            # The expression that the network cannot take must not fail those of other requests.
            for job in batch:
                self._run_batch([job])
            return
        self.examples_run += len(batch)
        for job, output in zip(batch, outputs, strict=True):
            job.future.set_result(output)
