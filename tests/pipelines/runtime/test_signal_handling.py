"""Signals are noted where work would be lost, raised where it would not, and stay ignored where they were."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

import pytest

from pipelines.runtime.signals import GracefulStop, RaiseOnSignal, Stopped, handle_signals
from shards.stop_signals import STOP_SIGNALS


@pytest.fixture(autouse=True)
def usual_signals() -> Iterator[None]:
    """SIGINT as in a terminal, even where these tests run in the background of a script."""
    before = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_raises_and_knows_its_exit_status(signum: signal.Signals, status: int) -> None:
    with pytest.raises(Stopped) as caught, RaiseOnSignal() as raising:
        signal.raise_signal(signum)
    assert caught.value.status == status
    assert raising.received == signum


def lose_a_signal(signum: signal.Signals, *, seconds: float) -> None:
    """As libraries do that try something while they are imported; then work."""
    with contextlib.suppress(BaseException):
        signal.raise_signal(signum)
    time.sleep(seconds)


def test_a_signal_that_a_library_swallows_is_raised_again() -> None:
    with pytest.raises(Stopped) as caught, RaiseOnSignal():
        lose_a_signal(signal.SIGTERM, seconds=5)
    assert caught.value.signum == signal.SIGTERM


def test_a_signal_is_not_raised_again_while_work_is_cleared_up() -> None:
    cleared: list[bool] = []
    clearing = contextlib.ExitStack()
    clearing.callback(cleared.append, True)
    clearing.callback(time.sleep, 0.5)
    with pytest.raises(Stopped), RaiseOnSignal(), clearing:
        signal.raise_signal(signal.SIGTERM)
    assert cleared


def test_a_signal_is_not_raised_again_when_the_work_has_ended() -> None:
    again: list[int] = []
    with handle_signals(lambda signum, frame: again.append(signum)), contextlib.ExitStack() as afterwards:
        afterwards.callback(time.sleep, 0.5)
        with RaiseOnSignal():
            lose_a_signal(signal.SIGTERM, seconds=0)
    assert again == []


def test_a_signal_is_noted_and_its_repetition_within_a_second_ignored() -> None:
    with GracefulStop() as stop:
        assert stop.signum is None
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signum == signal.SIGTERM


def test_another_signal_a_second_later_does_not_wait() -> None:
    with GracefulStop():
        signal.raise_signal(signal.SIGINT)
        time.sleep(1.05)
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)


def test_where_work_may_be_lost_a_signal_raises_with_what_was_saved() -> None:
    with GracefulStop() as stop, pytest.raises(Stopped) as caught, stop.immediate("step 3 is saved"):
        signal.raise_signal(signal.SIGTERM)
    assert (caught.value.signum, caught.value.saved) == (signal.SIGTERM, "step 3 is saved")


def test_a_noted_signal_is_raised_where_work_may_be_lost() -> None:
    begun = []
    with GracefulStop() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped, match="15"), stop.immediate("step 3 is saved"):
            begun.append(1)
    assert not begun


@pytest.mark.parametrize("catcher", [GracefulStop, RaiseOnSignal])
def test_a_signal_that_is_ignored_stays_so(catcher: type[GracefulStop | RaiseOnSignal]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with catcher():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


@pytest.mark.parametrize("catcher", [GracefulStop, RaiseOnSignal])
def test_afterwards_signals_are_as_they_were(catcher: type[GracefulStop | RaiseOnSignal]) -> None:
    before = [signal.getsignal(signum) for signum in STOP_SIGNALS]
    with catcher():
        assert [signal.getsignal(signum) for signum in STOP_SIGNALS] != before
    assert [signal.getsignal(signum) for signum in STOP_SIGNALS] == before
