"""One attempt at a file on a server or in an object store, checked; its error says why it failed.

HTTP goes through the standard library, which needs no other package; all other addresses go through fsspec.
"""

from __future__ import annotations

import base64
import hashlib
import http
import logging
import os
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any

from shards.errors import SettingsError
from shards.remote_addresses import HTTP_SCHEMES, redact_text, split_credentials

_CHUNK_BYTES = 1 << 18
# Slower than this for as long as the timeout counts as a server that does not answer.
_LEAST_BYTES_PER_SECOND = 1024
_LOGGING = ("fsspec", "gcsfs", "s3fs")
_REFUSED = frozenset({401, 403, 404, 410})


class TransferError(Exception):
    """An attempt failed: says why in a clause.

    `refused`: the server answered that it has or gives no such file. `useless`: what has come is no part of the file.
    """

    def __init__(self, what: str, *, refused: bool = False, useless: bool = False) -> None:
        super().__init__(what)
        self.what, self.refused, self.useless = what, refused, useless


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
    received, slow = stream.tell(), _SlowTransfer(timeout)
    with closing(_read_chunks(url, timeout, received)) as chunks:
        for position, chunk in chunks:
            if is_cancelled():
                raise TransferCancelledError
            if position != received:
                stream.truncate(0)
                received, digest = 0, hashlib.sha256()
            received += len(chunk)
            if received > expected.size:
                raise TransferError(f"more than {expected.size:,} bytes came", useless=True)
            slow.add(len(chunk))
            digest.update(chunk)
            stream.write(chunk)
    if expected.exact and received != expected.size:
        raise TransferError(f"{received:,} of {expected.size:,} bytes came")
    if expected.sha256 and digest.hexdigest() != expected.sha256:
        raise TransferError("its SHA-256 differs from the recorded one", useless=True)


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


Chunks = Generator[tuple[int, bytes], None, None]
"""Parts of a file in order, and the position of each in it."""


def _read_chunks(url: str, timeout: float, start: int) -> Chunks:
    """The file from a position on, or from its beginning if the server gives no parts of files."""
    if url.split(":", 1)[0].lower() in HTTP_SCHEMES:
        return _read_http(url, timeout, start)
    return _read_fsspec(url, start)


def _read_http(url: str, timeout: float, start: int) -> Chunks:
    import http.client
    import urllib.error
    import urllib.request

    address, credentials = split_credentials(url)
    try:
        headers = {"User-Agent": "igvg", **({"Range": f"bytes={start}-"} if start else {})}
        request = urllib.request.Request(address, headers=headers)  # noqa: S310, of an HTTP scheme
        if credentials:
            # Not sent on to where a redirect leads.
            encoded = base64.b64encode(credentials.encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {encoded}")
        response: Any
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            position = _find_position(response, start)
            while chunk := response.read1(_CHUNK_BYTES):
                yield position, chunk
                position += len(chunk)
            # How many bytes the server has announced and not sent.
            if response.length:
                raise TransferError(f"the connection ended {response.length:,} bytes before the end")
    except urllib.error.HTTPError as error:
        with error:
            useless = error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            what = _describe_status(error.code)
            raise TransferError(what, refused=error.code in _REFUSED, useless=useless) from error
    except urllib.error.URLError as error:
        reason = error.reason.strerror if isinstance(error.reason, OSError) else None
        raise TransferError(redact_text(reason or str(error.reason), url).lower()) from error
    except TimeoutError as error:
        raise TransferError(f"no answer for {timeout:g} seconds") from error
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise TransferError(redact_text(f"{type(error).__name__}: {error}", url)) from error


def _find_position(response: Any, start: int) -> int:
    """Where in the file an answer begins: at `start` or at 0."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    given = response.headers.get("Content-Range", "")
    if not given.replace(" ", "").startswith(f"bytes{start}-"):
        raise TransferError("the server sent another part of the file than was asked for", useless=True)
    return start


def _describe_status(code: int) -> str:
    names = {status.value: status.phrase for status in http.HTTPStatus}
    return f"the server answered {code} {names.get(code, '')}".rstrip()


def _read_fsspec(url: str, start: int) -> Chunks:
    scheme = url.split(":", 1)[0]
    remedy = "pip install 'igvg[remote]', or the package that fsspec names"
    for library in _LOGGING:
        # An error ends in one line of our own, without tracebacks of its threads.
        if (logger := logging.getLogger(library)).level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL + 1)
    # Otherwise gcsfs asks for the kind of each bucket, and warns where there are no credentials.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        import fsspec.core

        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise SettingsError(f"{scheme}:// cannot be read: {redact_text(str(error), url)}; {remedy}") from error
    except ValueError as error:
        what = f"{scheme}:// is no address that fsspec reads"
        raise SettingsError(f"{what}; give a folder, or https://, s3://, gs:// or hf://datasets/USER/REPO") from error
    try:
        stream: Any
        with filesystem.open(path, "rb") as stream:
            position = stream.seek(start) if start and stream.seekable() else 0
            while chunk := stream.read(_CHUNK_BYTES):
                yield position, chunk
                position += len(chunk)
    # Every file system has errors of its own.
    except Exception as error:
        raise _explain_store(error, url) from error


def _explain_store(error: Exception, url: str) -> TransferError:
    """An error of an object store or the hub."""
    if isinstance(error, FileNotFoundError):
        return TransferError("there is no such file", refused=True)
    # huggingface_hub has the answer, gcsfs the status itself.
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "code", None)
    if isinstance(status, int) and status >= http.HTTPStatus.BAD_REQUEST:
        return TransferError(_describe_status(status), refused=status in _REFUSED)
    refused = isinstance(error, PermissionError | IsADirectoryError) or str(error).startswith("Forbidden")
    return TransferError(redact_text(f"{type(error).__name__}: {error}", url), refused=refused)
