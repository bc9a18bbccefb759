"""Worker processes: results in order, no shared memory, and an end in every case."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from shards.errors import DataError, WorkerError
from shards.workers import BackgroundCall, map_ordered
from tests.support.paths import ROOT

start = partial(map_ordered, method="fork", remedy="use fewer")


def tell_process(task: int) -> tuple[int, int]:
    return task, os.getpid()


def finish_the_first_last(task: int) -> int:
    time.sleep(0.2 if task == 0 else 0)
    return task


def refuse_three(task: int) -> int:
    if task == 3:
        raise DataError("no three", file="a.json", record="line 3")
    return task


def fill_array(task: int) -> dict[str, np.ndarray]:
    return {"filled": np.full((3, 100_000), task), "empty": np.zeros((0, 4)), "turned": np.arange(6).reshape(2, 3).T}


def end_by(number: int, task: int) -> int:
    if task == 1:
        # pytest's own handler would tell of it at length.
        faulthandler.disable()
        os.kill(os.getpid(), number)
    return task


class HalfSent:
    """Ends its process while it is being sent."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        os.kill(os.getpid(), signal.SIGKILL)
        return HalfSent, ()


def send_half(task: int) -> tuple[bytes, HalfSent]:
    return b"x" * 1000, HalfSent()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    with closing(start(finish_the_first_last, range(20), workers=workers)) as results:
        assert list(results) == list(range(20))


def test_tasks_are_done_by_as_many_other_processes() -> None:
    with closing(start(tell_process, range(40), workers=2)) as results:
        processes = {process for _, process in results}
    assert len(processes) <= 2
    assert os.getpid() not in processes


def test_tasks_are_taken_a_few_ahead_only() -> None:
    taken: list[int] = []
    tasks = (taken.append(task) or task for task in range(100))
    with closing(start(tell_process, tasks, workers=2)) as results:
        next(results)
        assert len(taken) <= 5


def test_arrays_arrive_as_they_were_and_may_be_written_to() -> None:
    with closing(start(fill_array, [7], workers=1)) as results:
        (arrays,) = results
    for name, expected in fill_array(7).items():
        np.testing.assert_array_equal(arrays[name], expected)
        assert arrays[name].dtype == expected.dtype
    arrays["filled"] += 1


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_in_its_turn_with_all_that_it_says(workers: int) -> None:
    found: list[int] = []
    with closing(start(refuse_three, range(9), workers=workers)) as results:
        found += [next(results) for _ in range(3)]
        with pytest.raises(DataError) as caught:
            next(results)
    assert found == [0, 1, 2]
    assert str(caught.value) == "a.json, line 3: no three"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS, signal.SIGSEGV])
def test_a_worker_that_dies_is_named_with_the_remedy(number: signal.Signals) -> None:
    with (
        pytest.raises(WorkerError, match=f"killed by {number.name}.*; use fewer$"),
        closing(start(partial(end_by, number), range(9), workers=2)) as results,
    ):
        list(results)


def take_slowly(results: Iterator[object], count: int) -> None:
    for _ in range(count):
        next(results)
        time.sleep(0.005)


@pytest.mark.parametrize("position", [0, 1])
def test_a_worker_that_dies_is_noticed_even_if_another_does_all_the_work(position: int) -> None:
    with closing(start(tell_process, iter(int, 1), workers=2)) as results:
        # To one who takes results slowly, the worker that was ready last hands all of them.
        take_slowly(results, 20)
        worker = sorted(multiprocessing.active_children(), key=lambda child: child.name)[position]
        worker.kill()
        worker.join()
        with pytest.raises(WorkerError, match="SIGKILL"):
            take_slowly(results, 20)


def test_a_worker_that_dies_while_it_sends_is_named() -> None:
    with pytest.raises(WorkerError, match="SIGKILL"), closing(start(send_half, range(2), workers=1)) as results:
        list(results)


def test_no_worker_outlives_the_work() -> None:
    results = start(tell_process, range(100), workers=2)
    processes = {next(results)[1] for _ in range(10)}
    results.close()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@contextmanager
def few_files() -> Iterator[None]:
    """Inside, files can be opened for one pipe, not for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = sum(1 for _ in Path("/proc/self/fd").iterdir())
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 3, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_where_no_process_can_be_started_the_work_is_done_here() -> None:
    with few_files(), closing(start(tell_process, range(5), workers=8)) as results:
        found = list(results)
    assert found == [(task, os.getpid()) for task in range(5)]


def test_where_no_process_can_be_started_a_background_call_is_made_here() -> None:
    with few_files():
        call = BackgroundCall(partial(tell_process, 5), remedy="use fewer")
    assert not call.is_done
    assert call.result() == (5, os.getpid())
    call.close()


PROGRAM = """
    import os, sys, time
    from contextlib import closing
    from shards.workers import map_ordered

    def tell(task):
        time.sleep(0.01)
        return os.getpid()

    if __name__ == "__main__":
        with closing(map_ordered(tell, iter(int, 1), workers=2, method=sys.argv[1], remedy="")) as results:
            for process in results:
                print(process, flush=True)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_signals_to_all_processes_reach_the_parent_alone_and_its_death_ends_the_workers(
    tmp_path: Path, method: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    process = subprocess.Popen(
        [sys.executable, str(program), method], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    workers = {int(process.stdout.readline()) for _ in range(30)}
    assert len(workers) == 2
    for worker in workers:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker, number)
    # They go on: other results come.
    assert {int(process.stdout.readline()) for _ in range(30)} == workers
    process.kill()
    # Everybody holds the standard error open: its end is the last one's end.
    assert process.communicate(timeout=15)[1] == ""


def test_a_background_call_goes_on_beside_this_process() -> None:
    with closing(BackgroundCall(partial(finish_the_first_last, 0), remedy="use fewer")) as call:
        assert not call.is_done
        while not call.is_done:
            time.sleep(0.01)
        assert call.result() == 0
    with closing(BackgroundCall(partial(tell_process, 5), remedy="use fewer")) as call:
        task, process = call.result()
    assert (task, process != os.getpid()) == (5, True)
    assert not multiprocessing.active_children()


def test_a_background_call_raises_what_its_function_raised_and_names_its_death() -> None:
    with pytest.raises(DataError, match=r"a\.json, line 3: no three"):
        BackgroundCall(partial(refuse_three, 3), remedy="use fewer").result()
    with pytest.raises(WorkerError, match=r"killed by SIGKILL.*; use fewer$"):
        BackgroundCall(partial(end_by, signal.SIGKILL, 1), remedy="use fewer").result()
