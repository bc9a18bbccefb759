"""One attempt at a file on a server or in an object store, checked; its error says why it failed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any

from shards.file_kinds import describe_bytes
from shards.remote_chunks import TransferError, read_chunks

# Slower than this for as long as the timeout counts as a server that does not answer.
_LEAST_BYTES_PER_SECOND = 1024
# What servers give in place of a file.
_INSTEAD = frozenset({"HTML", "XML", "git-lfs", "git-annex", "gzip"})
_CHANGED = (
    "run the same command again; if that fails, too, the file there is damaged or was replaced: upload the set again"
)


class TransferCancelledError(Exception):
    """The attempt was given up because nobody waits for it any longer."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is known of a file before it comes: `size` in bytes, or the most that it may have, and its SHA-256."""

    size: int
    sha256: str = ""
    exact: bool = True


def download(
    url: str, target: Path, expected: Expected, *, timeout: float, is_cancelled: Callable[[], bool] = lambda: False
) -> None:
    """Write what an address holds to `target`.

    If size and SHA-256 are known, what an earlier attempt left in `target` is continued where the server allows it;
    whether that was right the SHA-256 of the whole file says.

    Args:
        url: of the file.
        target: the file to write.
        expected: size and SHA-256.
        timeout: seconds without an answer, or with next to none, after which the attempt fails.
        is_cancelled: asked between two chunks.

    Raises:
        TransferError: the server failed, or sent something else.
        TransferCancelledError: `is_cancelled` said so.
        SettingsError: no package reads such addresses.
        OSError: the target cannot be written.
    """
    try:
        with target.open("a+b") as stream:
            digest = _continue_from(stream, expected)
            if not stream.tell() or stream.tell() != expected.size:
                _receive(url, stream, expected, digest, timeout, is_cancelled)
    except TransferError as error:
        if error.useless or not target.stat().st_size:
            target.unlink()
        raise


def _continue_from(stream: BufferedRandom, expected: Expected) -> Any:
    """The digest of what the file holds, which is emptied if it cannot be the beginning of what is expected."""
    if not (expected.exact and expected.sha256) or stream.tell() > expected.size:
        stream.truncate(0)
    stream.seek(0)
    digest = hashlib.file_digest(stream, "sha256")
    if stream.tell() == expected.size and digest.hexdigest() != expected.sha256:
        stream.truncate(0)
        return hashlib.sha256()
    return digest


def _receive(
    url: str, stream: BufferedRandom, expected: Expected, digest: Any, timeout: float, is_cancelled: Callable[[], bool]
) -> None:
    """Append the rest of a file, or write it anew if the server sends it from its beginning."""
    received, slow, head = stream.tell(), _SlowTransfer(timeout), b""
    with closing(read_chunks(url, timeout, received)) as chunks:
        for position, chunk in chunks:
            if is_cancelled():
                raise TransferCancelledError
            if position != received:
                stream.truncate(0)
                received, digest = 0, hashlib.sha256()
            head = head if received else chunk
            received += len(chunk)
            if received > expected.size:
                raise _explain_difference(f"more than {expected.size:,} bytes came", head, useless=True)
            slow.add(len(chunk))
            digest.update(chunk)
            stream.write(chunk)
    if expected.exact and received != expected.size:
        raise _explain_difference(f"{received:,} of {expected.size:,} bytes came", head)
    if expected.sha256 and digest.hexdigest() != expected.sha256:
        raise _explain_difference("its SHA-256 differs from the recorded one", head, useless=True)


def _explain_difference(what: str, head: bytes, *, useless: bool = False) -> TransferError:
    """The error for another file than was expected; `head` are its first bytes, or none if an older part was continued.

    Many servers answer with a page where a file or the access to it is missing.
    """
    content = describe_bytes(head) if head else None
    if content is None or content.kind not in _INSTEAD:
        return TransferError(what, useless=useless, remedy=_CHANGED)
    return TransferError(f"{what}, which is {content.words}", useless=True, remedy=content.remedy)


class _SlowTransfer:
    """Notices a transfer that goes on, but so slowly that it would never end."""

    def __init__(self, timeout: float) -> None:
        self._timeout, self._since, self._received = timeout, time.monotonic(), 0

    def add(self, size: int) -> None:
        self._received += size
        elapsed = time.monotonic() - self._since
        if elapsed > self._timeout:
            if self._received < _LEAST_BYTES_PER_SECOND * elapsed:
                raise TransferError(f"only {self._received:,} bytes came in {elapsed:.0f} seconds")
            self._since, self._received = time.monotonic(), 0
