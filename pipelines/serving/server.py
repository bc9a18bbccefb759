"""A socket, and uvicorn on it until a signal."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from pipelines.runtime.signals import Stopped, handle_signals
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
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104
    return f"http://{f'[{name}]' if ':' in name else name}:{bound.getsockname()[1]}/"


def serve(app: ASGIApp, bound: socket.socket) -> None:
    """Answer requests until a signal: then those in progress are finished, or given up after some seconds.

    Raises:
        Stopped: always, by the signal.
    """
    server = build_server(app)
    server.run(sockets=[bound])
    if server.signum is not None:
        raise Stopped(server.signum, "the server has ended", resumable=False)


def build_server(app: ASGIApp) -> SignaledServer:
    """A server with a bounded number of connections, which logs nothing that clients send."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, lifespan="off", ws="none", http="h11",
        loop="asyncio", proxy_headers=False, limit_concurrency=_CONNECTIONS, backlog=_BACKLOG,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )  # fmt: skip
    return SignaledServer(config)


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
