"""What must hold when a file is read that may be hostile: one line that names it, in bounded time and memory."""

from __future__ import annotations

import contextlib
import resource
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from shards.errors import IGVGError

SECONDS, MEGABYTES = 2.0, 500


def read_or_refuse(read: Callable[[], object], named: Path, label: str) -> str:
    """Call `read`; says whether it was "read" or "refused".

    Raises:
        AssertionError: it raised something else than one line that names `named`, or took too much time or memory.
    """
    begun = time.process_time()
    try:
        with limit_memory(MEGABYTES):
            read()
        outcome = "read"
    except IGVGError as error:
        check_refusal(error, named, label)
        outcome = "refused"
    except AssertionError as error:
        raise AssertionError(f"{label}: {_locate(error)}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{label}: {_locate(error)}: {type(error).__name__}: {str(error)[:300]}") from error
    seconds = time.process_time() - begun
    assert seconds < SECONDS, f"{label}: {seconds:.1f} s"
    return outcome


def _locate(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def check_refusal(error: IGVGError, named: Path, label: str) -> None:
    """Check that a refusal is one line of a bounded length, names the file, and is not for lack of memory.

    Raises:
        AssertionError: it is not.
    """
    text = str(error)
    assert len(text.splitlines()) == 1, f"{label}: {text!r}"
    assert str(named) in text, f"{label}: {text!r}"
    assert len(text) < 6000, f"{label}: a line of {len(text)} characters"
    assert text.isprintable(), f"{label}: {text!r}"
    cause: BaseException | None = error
    while cause is not None:
        assert not isinstance(cause, MemoryError), f"{label}: out of memory: {text}"
        cause = cause.__cause__ or cause.__context__


@contextlib.contextmanager
def limit_memory(megabytes: int) -> Iterator[None]:
    """Let this process map so much more memory than now."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (megabytes << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
