"""SIGINT and SIGTERM: raised as `Stopped`, or kept as a request that a loop answers where nothing is lost.

A signal that was ignored when the program was started stays ignored, as for programs under nohup or in the background
of a script.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor


Handler = Callable[[int, FrameType | None], None]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Schedulers signal the group and then each process: what comes so soon is the same request again.
_SAME_REQUEST = 1.0
# Long enough to leave the code in which an exception went.
_AGAIN = 0.1


class Stopped(KeyboardInterrupt):
    """A signal asks to stop.

    Args:
        number: the signal.
        what: what was saved, a clause; empty where nothing had to be.
    """

    def __init__(self, number: int, what: str = "") -> None:
        self.number, self.what = signal.Signals(number), what
        super().__init__(number)

    @property
    def status(self) -> int:
        """The exit status that says so: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


@contextlib.contextmanager
def handle_signals(handler: Handler) -> Iterator[None]:
    """Call a handler for SIGINT and SIGTERM; outside the main thread, and where they are ignored, nothing changes."""
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        previous = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, handler_before in previous.items():
            signal.signal(number, handler_before)


class Interruption:
    """While open, a signal raises `Stopped` in the main thread; `received` remembers it.

    Libraries catch all exceptions here and there, e.g. while they are imported: one that got lost is raised again.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._time = 0.0
        self._raised: weakref.ref[Stopped] | None = None
        self._handling = handle_signals(self._raise)

    def __enter__(self) -> Self:
        self._handling.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raised = None
        self._handling.__exit__(kind, error, trace)

    def _raise(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        now = time.monotonic()
        underway = self._raised is not None and self._raised() is not None
        if underway and now - self._time < _SAME_REQUEST:
            return
        self.received, self._time = number, now
        stopped = Stopped(number)
        self._raised = weakref.ref(stopped, self._raise_again)
        try:
            raise stopped
        finally:
            # The traceback holds this frame, which must not hold the exception, or nobody would see it go.
            del stopped

    def _raise_again(self, lost: weakref.ref[Stopped]) -> None:
        """Called when the exception is gone; what a handler raised in here would be lost, too."""

        def signal_later() -> None:
            time.sleep(_AGAIN)
            if self._raised is lost and self.received is not None:
                os.kill(os.getpid(), self.received)

        if self._raised is lost:
            threading.Thread(target=signal_later, daemon=True).start()


class LastWord:
    """What is said when a signal ends a process that cannot answer it in its main thread; returns the exit status."""

    say: Callable[[Stopped], int] = staticmethod(lambda stopped: stopped.status)


@contextlib.contextmanager
def leave_at_once() -> Iterator[None]:
    """While open, a signal ends the process even if the main thread waits inside a library, where no handler runs.

    Nothing may have to be saved. Outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_leave_on_signal, args=(reading,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        watcher.join()
        os.close(reading)


def _leave_on_signal(reading: int) -> None:
    """Python writes the number of each signal that has a handler into the pipe; its end ends the watch."""
    while number := os.read(reading, 1):
        if number[0] in SIGNALS:
            os._exit(LastWord.say(Stopped(number[0])))


class GracefulStop:
    """While open, the first signal is only noted in `number`; another one, later than a second, raises `Stopped`."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._time = 0.0
        self._at_once = False
        self._handling = handle_signals(self._note)

    def __enter__(self) -> Self:
        self._handling.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handling.__exit__(kind, error, trace)

    @contextlib.contextmanager
    def at_once(self, what: str) -> Iterator[None]:
        """Inside, a signal raises `Stopped` where it arrives: for work that may be lost; `what` was saved before."""
        self._at_once = True
        try:
            if self.number is not None:
                raise Stopped(self.number)
            yield
        except Stopped as stopped:
            raise Stopped(stopped.number, what) from None
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        now, again = time.monotonic(), self.number is not None
        if again and now - self._time < _SAME_REQUEST:
            return
        self.number, self._time = number, now
        if again or self._at_once:
            raise Stopped(number)


class StopAgreement:
    """Lets the processes of a training stop after the same step: one that left alone would keep the others waiting.

    Every process calls `ask` once a step. What any of them was asked to do is known to all one step later, when the
    device has long worked it out, so that nobody waits for it.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._asked: Tensor | None = None

    def ask(self, number: int | None) -> int | None:
        """The signal that asks all processes to stop after this step, if there is one; `number` is this process's."""
        if self._accelerator.num_processes == 1:
            return number
        import torch

        known, device = self._asked, self._accelerator.device
        flags = torch.stack([torch.full((), float(number == one), device=device) for one in SIGNALS])
        self._asked = self._accelerator.reduce(flags, reduction="sum")
        if known is None:
            return None
        return next((int(one) for one, asked in zip(SIGNALS, known.tolist(), strict=True) if asked), None)
