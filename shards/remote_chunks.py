"""The bytes of a file on a server or in an object store, in chunks; an error says why they do not come.

HTTP goes through the standard library, which needs no other package; all other addresses go through fsspec.
"""

from __future__ import annotations

import base64
import http
import logging
import os
from collections.abc import Generator
from typing import Any

from shards.errors import SettingsError
from shards.remote_addresses import HTTP_SCHEMES, escape_url, redact_text, split_credentials

_CHUNK_BYTES = 1 << 18
_LOGGING = ("fsspec", "gcsfs", "s3fs")
_REFUSED = frozenset({401, 403, 404, 410})
_NO_ACCESS = frozenset({401, 403})

Chunks = Generator[tuple[int, bytes], None, None]
"""Parts of a file in order, and the position of each in it."""


class TransferError(Exception):
    """An attempt failed: says why in a clause, and in `remedy`, if that is known, what helps.

    `refused`: the server answered that it has or gives no such file. `useless`: what has come is no part of the file.
    """

    def __init__(self, what: str, *, refused: bool = False, useless: bool = False, remedy: str = "") -> None:
        super().__init__(what)
        self.what, self.refused, self.useless, self.remedy = what, refused, useless, remedy


def read_chunks(url: str, timeout: float, start: int) -> Chunks:
    """The file from a position on, or from its beginning if the server gives no parts of files.

    Args:
        url: of the file.
        timeout: seconds without an answer after which HTTP fails; other stores have their own.
        start: position of the first byte that is needed.

    Raises:
        TransferError: the server failed, or answered something else.
        SettingsError: no package reads such addresses.
    """
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
        request = urllib.request.Request(escape_url(address), headers=headers)  # noqa: S310, of an HTTP scheme
        if credentials:
            # Not sent on to where a redirect leads.
            encoded = base64.b64encode(credentials.encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {encoded}")
        response: Any
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            _refuse_encoded(response)
            position = _find_position(response, start)
            while chunk := response.read1(_CHUNK_BYTES):
                yield position, chunk
                position += len(chunk)
            # How many bytes the server has announced and not sent.
            if response.length:
                raise TransferError(f"the connection ended {response.length:,} bytes before the end")
    except urllib.error.HTTPError as error:
        with error:
            raise _explain_status(error.code, signed=bool(credentials or "?" in address)) from error
    except urllib.error.URLError as error:
        raise _explain_connection(error.reason, url) from error
    except TimeoutError as error:
        raise TransferError(f"no answer for {timeout:g} seconds") from error
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise TransferError(redact_text(f"{type(error).__name__}: {error}", url)) from error


def _refuse_encoded(response: Any) -> None:
    """Refuse a file that the server compresses, though it was not asked to."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        what = f"the server compresses it (Content-Encoding: {encoding})"
        raise TransferError(what, useless=True, remedy="let the server give its files as they are")


def _find_position(response: Any, start: int) -> int:
    """Where in the file an answer begins: at `start` or at 0."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    given = response.headers.get("Content-Range", "")
    if not given.replace(" ", "").startswith(f"bytes{start}-"):
        raise TransferError("the server sent another part of the file than was asked for", useless=True)
    return start


def _explain_status(code: int, *, signed: bool) -> TransferError:
    """An answer of HTTP that is no file; `signed` says whether user and password or a query were sent."""
    what, remedy = _describe_status(code), ""
    if code in _NO_ACCESS:
        remedy = "check the folder's address, and "
        remedy += "its user name and password or signature" if signed else "give https://USER:PASSWORD@HOST/FOLDER"
    elif http.HTTPStatus.MULTIPLE_CHOICES <= code < http.HTTPStatus.BAD_REQUEST:
        what += ", a redirect without end or to no HTTP address"
    useless = code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    return TransferError(what, refused=code in _REFUSED, useless=useless, remedy=remedy)


def _describe_status(code: int) -> str:
    names = {status.value: status.phrase for status in http.HTTPStatus}
    return f"the server answered {code} {names.get(code, '')}".rstrip()


def _explain_connection(reason: object, url: str) -> TransferError:
    """No connection, or none that is secure."""
    import ssl

    if isinstance(reason, ssl.SSLCertVerificationError):
        remedy = "SSL_CERT_FILE names a file of the certificates that you trust"
        return TransferError(f"the server's certificate is not trusted ({reason.verify_message})", remedy=remedy)
    if isinstance(reason, ssl.SSLError):
        what = f"no secure connection ({reason.reason or 'TLS failed'})"
        return TransferError(what, remedy="if the server speaks plain HTTP, give http://")
    words = reason.strerror if isinstance(reason, OSError) else None
    return TransferError(redact_text(words or str(reason), url).lower())


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
    # Some file systems, such as FTP's, connect at once.
    except Exception as error:
        raise _explain_store(error, url) from error
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
