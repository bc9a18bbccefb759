"""Worker processes that receive tasks and return results through one pipe each; results keep the order of the tasks.

Large arrays may be handed over in memory that belongs to no file. Nothing else is shared: workers need no /dev/shm and
few file descriptors, and the death of a worker is noticed at once.
Signals that a scheduler or a terminal sends to every process are blocked in workers: these end when their pipe is
closed, as it also is when the parent is killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker, util
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar, cast

from shards.errors import WorkerError
from shards.shared_slots import SharedSlots, Slot
from shards.stop_signals import STOP_SIGNALS

Task = TypeVar("Task")
Result = TypeVar("Result")

TASKS_AHEAD = 2
"""Tasks per worker that are sent before their results are taken."""
_GRACE_SECONDS = 5.0
_LENGTH = struct.Struct("<Q")
# Below this a copy through the pipe costs less.
_LEAST_SHARED = 1 << 16

# In the parent: its ends of all pipes, which a forked worker closes.
_parent_ends: set[socket.socket] = set()
# In a worker: its end of the pipe.
_own_ends: list[socket.socket] = []


@dataclass(frozen=True, slots=True, eq=False)
class _Worker:
    process: BaseProcess
    pipe: socket.socket


def map_ordered(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    workers: int,
    remedy: str,
    method: str | None = None,
    initialize: Callable[[], None] | None = None,
    shared_bytes: int = 0,
) -> Generator[Result, None, None]:
    """Results of a function in the order of the tasks; close the generator to end the workers.

    Args:
        function: makes the result of a task; pickled unless workers are forked.
        tasks: taken one after the other, a few ahead of the results.
        workers: processes; with 0, or if the system starts none, this process runs the tasks.
        remedy: what the user can do if a worker dies, a clause.
        method: how processes are started, e.g. spawn; None is the system's way.
        initialize: called once in every worker.
        shared_bytes: arrays of a result up to so many bytes are handed over in shared memory, if workers are forked.

    Raises:
        WorkerError: a worker died.
        Exception: the error of a task, in its turn.
    """
    slots = _share_memory(workers, shared_bytes, method)
    pool = _start_workers(partial(_run_worker, function, initialize, slots), workers, method)
    if not pool:
        for task in tasks:
            yield function(task)
        return
    # Also called if the interpreter exits while the generator is open.
    stop = util.Finalize(None, _stop_workers, args=(pool,), exitpriority=10)
    try:
        yield from _run_tasks(pool, tasks, remedy, slots)
    finally:
        stop()


class BackgroundCall(Generic[Result]):
    """One call of a function in a worker process of its own, while this process goes on.

    Args:
        function: makes the result; pickled unless workers are forked. It calls `check_parent` now and then.
        remedy: what the user can do if the worker dies, a clause.

    If the system starts no worker, `result` calls the function.
    """

    def __init__(self, function: Callable[[], Result], *, remedy: str) -> None:
        self._function, self._remedy = function, remedy
        self._pool = _start_workers(partial(_run_worker, partial(_call, function), None, None), 1, None)
        # Also called when the interpreter exits.
        self._stop = util.Finalize(self, _stop_workers, args=(self._pool,), exitpriority=10)
        for worker in self._pool:
            with _explain_death(worker, remedy):
                _send(worker.pipe, (None, None))

    @property
    def is_done(self) -> bool:
        """Whether `result` returns at once."""
        return any(wait([worker.pipe], timeout=0) for worker in self._pool)

    def result(self) -> Result:
        """What the function returned; waits for it. May be called once.

        Raises:
            WorkerError: the worker died.
            Exception: whatever the function raised.
        """
        if not self._pool:
            return self._function()
        (worker,) = self._pool
        with contextlib.closing(self), _explain_death(worker, self._remedy):
            succeeded, value = _receive(worker.pipe)
        if not succeeded:
            raise value
        return cast("Result", value)

    def close(self) -> None:
        """End the worker."""
        self._stop()


def check_parent() -> None:
    """Exit from a worker whose parent has closed the pipe or has ended.

    Raises:
        SystemExit: the pipe is closed.
    """
    # A busy worker is sent nothing, so that only a closed pipe can be read.
    if wait(_own_ends, timeout=0):
        raise SystemExit


def _call(function: Callable[[], Result], _: None) -> Result:
    return function()


def _run_tasks(pool: list[_Worker], tasks: Iterable[Any], remedy: str, slots: SharedSlots | None) -> Iterator[Any]:
    indexed_tasks, idle = enumerate(tasks), list(pool)
    workers = {worker.pipe: worker for worker in pool}
    busy: dict[socket.socket, tuple[int, Slot | None]] = {}
    results: dict[int, tuple[bool, Any]] = {}
    next_index, num_sent = 0, 0
    while True:
        # Idle workers send nothing: of these only the pipe of a dead one is ready.
        # Ready workers get their next task before a result is yielded.
        for ready in wait(list(workers), timeout=0 if next_index in results else None) if busy else ():
            pipe = cast("socket.socket", ready)
            with _explain_death(workers[pipe], remedy):
                index, slot = busy.get(pipe, (-1, None))
                results[index] = _receive(pipe, slot)
                del busy[pipe]
            idle.append(workers[pipe])
        while idle and num_sent - next_index < TASKS_AHEAD * len(pool) and (pair := next(indexed_tasks, None)):
            worker, num_sent = idle.pop(), pair[0] + 1
            slot = slots.take() if slots else None
            with _explain_death(worker, remedy):
                _send(worker.pipe, (pair[1], None if slot is None else slot.index))
            busy[worker.pipe] = pair[0], slot
        if next_index in results:
            succeeded, value = results.pop(next_index)
            if not succeeded:
                raise value
            next_index += 1
            yield value
        elif not busy:
            return


def _share_memory(workers: int, size: int, method: str | None) -> SharedSlots | None:
    """Slots for the tasks ahead and two results in use; None if the system does not give the memory."""
    if not workers or not size or multiprocessing.get_context(method).get_start_method() != "fork":
        return None
    try:
        return SharedSlots(TASKS_AHEAD * workers + 2, size)
    except (OSError, ValueError):
        return None


def _start_workers(run: Callable[[socket.socket], None], count: int, method: str | None) -> list[_Worker]:
    """Start workers; none if the system does not allow that many."""
    context = multiprocessing.get_context(method)
    if context.get_start_method() != "fork" and count:
        # Started inside `_block_signals` it would unblock the signals.
        resource_tracker.ensure_running()
    pool: list[_Worker] = []
    try:
        with _block_signals():
            for _ in range(count):
                own, other = socket.socketpair()
                _parent_ends.add(own)
                with other:
                    # mypy: the common base of all contexts' processes has no constructor of its own.
                    process = context.Process(target=run, args=(other,), daemon=True)  # type: ignore[attr-defined]
                    pool.append(_Worker(process, own))
                    process.start()
    except OSError:
        # Too many files are open, or too many processes run.
        _stop_workers(pool)
        return []
    return pool


@contextlib.contextmanager
def _block_signals() -> Iterator[None]:
    """Block these signals in processes that are started inside, and in this process until the end of the block."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _stop_workers(pool: list[_Worker]) -> None:
    for worker in pool:
        _parent_ends.discard(worker.pipe)
        worker.pipe.close()
    started = [worker.process for worker in pool if worker.process.pid is not None]
    deadline = time.monotonic() + _GRACE_SECONDS
    try:
        for process in started:
            process.join(max(0.0, deadline - time.monotonic()))
    finally:
        for process in started:
            process.kill()
            process.join()
            process.close()
        pool.clear()


def _run_worker(
    function: Callable[[Any], Any],
    initialize: Callable[[], None] | None,
    slots: SharedSlots | None,
    pipe: socket.socket,
) -> None:
    """Run tasks in a worker until its pipe is closed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    for inherited in _parent_ends:
        inherited.close()
    _parent_ends.clear()
    _own_ends[:] = [pipe]
    if initialize:
        initialize()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            task, index = _receive(pipe)
            slot = Slot(slots, index) if slots and index is not None else None
            try:
                result: tuple[bool, Any] = True, function(task)
            except Exception as error:
                error.add_note(traceback.format_exc())
                result = False, error
            _send(pipe, result, slot)


@contextlib.contextmanager
def _explain_death(worker: _Worker, remedy: str) -> Iterator[None]:
    """Raise WorkerError if the worker's pipe is closed, and say how the worker ended."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        worker.process.join(_GRACE_SECONDS)
        code = worker.process.exitcode
        how = f"ended with status {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                how += ", as the system does when memory runs out"
        raise WorkerError(f"a worker process {how}; {remedy}") from error


def _send(pipe: socket.socket, value: Any, slot: Slot | None = None) -> None:
    """Send a value; the memory of arrays is written to the slot if it fits, else sent without a copy."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    large = sum(view.nbytes for view in views) >= _LEAST_SHARED
    shared = large and slot is not None and slot.write(views)
    numbers = [len(views), shared, len(content), *(view.nbytes for view in views)]
    pipe.sendall(b"".join(map(_LENGTH.pack, numbers)))
    pipe.sendall(content)
    for view in () if shared else views:
        pipe.sendall(view)


def _receive(pipe: socket.socket, slot: Slot | None = None) -> Any:
    """Receive a value; `slot` is where its arrays may be, and is freed if they are not."""
    num_views, shared, length = _receive_numbers(pipe, 3)
    sizes = _receive_numbers(pipe, num_views)
    content = _receive_bytes(pipe, length)
    if slot is not None and shared:
        return pickle.loads(content, buffers=slot.read(sizes))  # noqa: S301 - written by this program
    if slot is not None:
        slot.give_back()
    buffers = [_receive_bytes(pipe, size) for size in sizes]
    return pickle.loads(content, buffers=buffers)  # noqa: S301 - written by this program


def _receive_numbers(pipe: socket.socket, count: int) -> list[int]:
    return [number for (number,) in _LENGTH.iter_unpack(_receive_bytes(pipe, count * _LENGTH.size))]


def _receive_bytes(pipe: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size:
        count = pipe.recv_into(view[filled:])
        if not count:
            raise EOFError
        filled += count
    return data
