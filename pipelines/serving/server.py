"""A socket, and uvicorn on it until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipelines.runtime.signals import Stopped, handle_signals
from pipelines.serving.guard import listens_on_all
from shards.errors import SettingsError

# Seconds that answers in progress have after a signal.
_GRACE_SECONDS = 5
_CONNECTIONS = 512
_BACKLOG = 128


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Connections wait until `serve` is called.

    Raises:
        SettingsError: the address is unknown or not this machine's, or the port is in use or reserved.
    """
    try:
        # IPv4 first: where a name has both, clients try it, too.
        found = sorted(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE),
            key=lambda entry: entry[0] != socket.AF_INET,
        )
        return _listen(*found[0])
    except (OSError, UnicodeError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(
            f"cannot listen on {host}, port {port} ({(reason or str(error)).lower()}); give another --port, 0 for a "
            "free one, or another --host"
        ) from error


def _listen(family: int, kind: int, protocol: int, _name: str, address: Any) -> socket.socket:
    bound = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            # A port whose last connections are still being closed is free.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound


def format_url(host: str, bound: socket.socket) -> str:
    """The address of the page on a bound socket."""
    name = socket.gethostname() if listens_on_all(host) else host
    return f"http://{f'[{name}]' if ':' in name else name}:{bound.getsockname()[1]}/"


def serve(app: ASGIApp, bound: socket.socket, seconds: float) -> None:
    """Answer requests until a signal: then those in progress are finished, or given up after some seconds.

    Args:
        app: the application.
        bound: a listening socket.
        seconds: as for `build_server`.

    Raises:
        Stopped: always, by the signal.
    """
    server = build_server(app, seconds)
    server.run(sockets=[bound])
    if server.signum is not None:
        raise Stopped(server.signum, "the server has ended", resumable=False)


def build_server(app: ASGIApp, seconds: float) -> SignaledServer:
    """A server with a bounded number of connections, which logs nothing that clients send.

    Args:
        app: the application.
        seconds: time in which a connection must begin a request, and read its response.
    """
    for name in ("uvicorn", "python_multipart"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    class Protocol(TimedProtocol):
        limit_seconds = seconds

    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, lifespan="off", ws="none", http=Protocol,
        loop="asyncio", proxy_headers=False, limit_concurrency=_CONNECTIONS, backlog=_BACKLOG,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )  # fmt: skip
    return SignaledServer(config)


class TimedProtocol(H11Protocol):
    """HTTP on one connection, which is cut off where the client stops sending or reading: connections are bounded."""

    limit_seconds: float
    _idle: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._expect_request(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        super().connection_lost(exc)
        for timer in (self._idle, self._unread):
            if timer is not None:
                timer.cancel()

    def on_response_complete(self) -> None:
        """Wait for the next request; uvicorn's own limit for this ends with the first byte of one."""
        answered = self.cycle
        super().on_response_complete()
        self._expect_request(answered)

    def pause_writing(self) -> None:
        """Wait until the client reads."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.limit_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _expect_request(self, answered: object) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = self.loop.call_later(self.limit_seconds, self._abort_unless_begun, answered)

    def _abort_unless_begun(self, answered: object) -> None:
        if self.cycle is answered:
            self.transport.abort()


class SignaledServer(uvicorn.Server):
    """uvicorn with the signals of igvg: one that was ignored at the start stays ignored."""

    signum: int | None = None
    """The signal that ended it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the server runs."""
        with handle_signals(self._stop):
            yield

    def _stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.force_exit = self.should_exit
        self.should_exit = True
        self.signum = self.signum or signum
