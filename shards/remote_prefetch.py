"""Shards fetched in the background before they are needed, by one thread of each process, which ends with its work."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence

from shards.errors import IGVGError
from shards.remote_chunks import TransferError
from shards.remote_shards import RemoteShard
from shards.remote_transfer import TransferCancelledError

SHARDS_AHEAD = 2
# A thread that waits for a silent server is not waited for.
_JOIN_SECONDS = 2.0


class _Background:
    """The thread at work, if any."""

    thread: threading.Thread | None = None
    cancelled = threading.Event()


def prefetch(shards: Sequence[RemoteShard]) -> None:
    """Begin to fetch shards, in order; does nothing while the shards of an earlier call are still being fetched.

    A shard that cannot be fetched is left to whoever needs it, who tries again and says why.
    """
    if not shards or (_Background.thread is not None and _Background.thread.is_alive()):
        return
    _Background.cancelled = threading.Event()
    arguments = (list(shards), _Background.cancelled)
    _Background.thread = threading.Thread(target=_fetch, args=arguments, name="igvg-prefetch", daemon=True)
    _Background.thread.start()


def cancel() -> None:
    """Give up what is being fetched, and wait for the end of the thread."""
    thread, _Background.thread = _Background.thread, None
    if thread is not None:
        _Background.cancelled.set()
        thread.join(_JOIN_SECONDS)


def _fetch(shards: list[RemoteShard], cancelled: threading.Event) -> None:
    for shard in shards:
        with contextlib.suppress(TransferError, TransferCancelledError, IGVGError, OSError):
            shard.fetch_ahead(cancelled.is_set)
        if cancelled.is_set():
            return


# A process with threads is not safe to fork.
os.register_at_fork(before=cancel)
