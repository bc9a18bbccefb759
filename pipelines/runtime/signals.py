"""Signals that stop a program: raised as `Stopped`, or noted for a loop that stops where nothing is lost.

A signal that was ignored when the program started stays ignored, as for programs under nohup or in the background of a
script.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from shards.stop_signals import STOP_SIGNALS

if TYPE_CHECKING:
    from accelerate import Accelerator

    from pipelines.runtime.host_copy import HostCopy


Handler = Callable[[int, FrameType | None], None]

# Schedulers signal the process group and then each process: a signal within this many seconds is a repetition.
_REPETITION = 1.0
# Seconds after which a swallowed signal is raised again: the code that swallowed it has ended by then.
_RAISE_AGAIN = 0.1


class Stopped(KeyboardInterrupt):
    """A signal asks the program to stop.

    Args:
        signum: the signal.
        saved: a clause on what was saved; empty where nothing had to be.
        resumable: whether the same command continues the work.
    """

    def __init__(self, signum: int, saved: str = "", *, resumable: bool = True) -> None:
        self.signum, self.saved, self.resumable = signal.Signals(signum), saved, resumable
        super().__init__(signum)

    @property
    def status(self) -> int:
        """The exit status: 130 for SIGINT, 143 for SIGTERM, 138 for SIGUSR1, 129 for SIGHUP."""
        return 128 + self.signum


@contextlib.contextmanager
def handle_signals(handler: Handler) -> Iterator[None]:
    """Call a handler for `STOP_SIGNALS`; does nothing outside the main thread and for ignored signals."""
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handled = [signum for signum in STOP_SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN]
        previous = {signum: signal.signal(signum, handler) for signum in handled}
    try:
        yield
    finally:
        for signum, previous_handler in previous.items():
            signal.signal(signum, previous_handler)


class RaiseOnSignal:
    """While open, a signal raises `Stopped` in the main thread and is noted in `received`.

    Some libraries swallow all exceptions, e.g. while they are imported: a swallowed `Stopped` is raised again.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._time = 0.0
        self._raised: weakref.ref[Stopped] | None = None
        self._handling = handle_signals(self._raise)

    def __enter__(self) -> Self:
        self._handling.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._raised = None
        self._handling.__exit__(*error)

    def _raise(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        now = time.monotonic()
        in_flight = self._raised is not None and self._raised() is not None
        if in_flight and now - self._time < _REPETITION:
            return
        self.received, self._time = signum, now
        stopped = Stopped(signum)
        self._raised = weakref.ref(stopped, self._raise_again)
        try:
            raise stopped
        finally:
            # The traceback refers to this frame: a reference from here to the exception would keep it alive.
            del stopped

    def _raise_again(self, swallowed: weakref.ref[Stopped]) -> None:
        """Called when the exception is deleted; an exception raised here would be lost."""

        def signal_later() -> None:
            time.sleep(_RAISE_AGAIN)
            if self._raised is swallowed and self.received is not None:
                os.kill(os.getpid(), self.received)

        if self._raised is swallowed:
            threading.Thread(target=signal_later, daemon=True).start()


class ExitReport:
    """The function that reports a signal which ends the process outside the main thread; returns the exit status."""

    function: Callable[[Stopped], int] = staticmethod(lambda stopped: stopped.status)


@contextlib.contextmanager
def exit_on_signal() -> Iterator[None]:
    """While open, a signal ends the process even if the main thread waits inside a library, where no handler runs.

    Only for code that has nothing to save. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_exit_on_signal, args=(reading,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        watcher.join()
        os.close(reading)


def _exit_on_signal(reading: int) -> None:
    """Python writes the number of each signal that has a handler into the pipe; its end ends the thread."""
    while data := os.read(reading, 1):
        if data[0] in STOP_SIGNALS:
            os._exit(ExitReport.function(Stopped(data[0])))


class GracefulStop:
    """While open, the first signal is only noted in `signum`; another one more than a second later raises `Stopped`."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._time = 0.0
        self._raises = False
        self._handling = handle_signals(self._note)

    def __enter__(self) -> Self:
        self._handling.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._handling.__exit__(*error)

    @contextlib.contextmanager
    def immediate(self, saved: str) -> Iterator[None]:
        """Inside, a signal raises `Stopped` at once: for work that may be lost; `saved` says what was saved before."""
        self._raises = True
        try:
            if self.signum is not None:
                raise Stopped(self.signum)
            yield
        except Stopped as stopped:
            raise Stopped(stopped.signum, saved) from None
        finally:
            self._raises = False

    def _note(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        now, repeated = time.monotonic(), self.signum is not None
        if repeated and now - self._time < _REPETITION:
            return
        self.signum, self._time = signum, now
        if repeated or self._raises:
            raise Stopped(signum)


class SharedRequests:
    """Lets all ranks of a training stop, or save its state, after the same step.

    If only one stopped, the others would wait for it. Every rank calls `reduce` once a step. The result of the
    reduction is read one step later, so that no rank waits for the device.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._reduced: HostCopy | None = None
        self._save_requested = False

    def reduce(self, signum: int | None, *, save: bool) -> tuple[int | None, bool]:
        """The signal after which all ranks stop now, if there is one, and whether all ranks save the state now.

        `signum` is what this rank received, `save` whether it asks to save.
        """
        if self._accelerator.num_processes == 1:
            return signum, save
        import torch

        from pipelines.runtime.host_copy import HostCopy

        # A request that is on its way is not made twice.
        self._save_requested = save and not self._save_requested
        requests = [*(signum == each for each in STOP_SIGNALS), self._save_requested]
        flags = torch.stack([torch.full((), float(flag), device=self._accelerator.device) for flag in requests])
        previous, self._reduced = self._reduced, HostCopy(self._accelerator.reduce(flags, reduction="sum"))
        if previous is None:
            return None, False
        *signals, save_now = map(bool, previous.read().tolist())
        return next((int(each) for each, flag in zip(STOP_SIGNALS, signals, strict=True) if flag), None), save_now
