"""Who may use the server: checks of every request before its body is read, and headers of every response.

On a loopback address nobody else's machine can connect, but pages of the web that the user visits could: by requests to
another origin, and by a name of their own that resolves to the loopback address (DNS rebinding). Browsers cannot forge
the headers Host, Origin and Sec-Fetch-Site. Elsewhere a token is required.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAME = "localhost"
PAGE_PATHS = ("/", "/favicon.ico")
STATIC_PREFIX = "/static/"
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may use the server."""

    host: str
    """The address or name that the server listens on."""
    token: str | None = None
    """What requests must show; None: nothing."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    def allows_host(self, header: str) -> bool:
        """Whether a Host header names this server: its own name, or an address, which no foreign name server gives."""
        name = split_host(header)
        if name is None:
            return False
        if name in (LOOPBACK_NAME, self.host.lower().strip("[]")):
            return True
        # On other machines the name may need its domain.
        if listens_on_all(self.host) and name.partition(".")[0] == socket.gethostname().lower().partition(".")[0]:
            return True
        return _is_address(name) and (is_loopback(name) or not self.is_local)

    def allows_token(self, authorization: str) -> bool:
        """Whether an Authorization header shows the token; takes the same time for every wrong one."""
        if self.token is None:
            return True
        kind, _, shown = authorization.partition(" ")
        return secrets.compare_digest(shown.strip().encode(), self.token.encode()) and kind.lower() == "bearer"


class Guard:
    """Refuses requests that `Access` does not allow, as an ASGI application around another one."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refuse(scope["path"], Headers(scope=scope))
        if refusal is None:
            await self.app(scope, receive, send_with_headers)
        else:
            await send_problem(send_with_headers, *refusal)

    def _refuse(self, path: str, headers: Headers) -> tuple[int, str, Mapping[str, str]] | None:
        """Status, detail and headers of a refusal; None where the request may go on."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.access.allows_host(host):
            return 403, "the Host header names another server; use the address that igvg serve printed", {}
        is_page = path in PAGE_PATHS or path.startswith(STATIC_PREFIX)
        foreign_origin = origin is not None and _read_origin(origin) != host.lower()
        # A link to the page on another site is no harm; requests by that site's scripts are.
        if foreign_origin or (headers.get("sec-fetch-site") in ("cross-site", "same-site") and not is_page):
            return 403, "requests of pages of other origins are refused", {}
        if not is_page and not self.access.allows_token(headers.get("authorization", "")):
            return 401, "send the server's token as Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
        return None


def is_loopback(host: str) -> bool:
    """Whether a name or an address is the loopback's."""
    name = host.lower().strip("[]")
    return name == LOOPBACK_NAME or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def listens_on_all(host: str) -> bool:
    """Whether an address stands for all addresses of the machine, as 0.0.0.0 does."""
    name = host.strip("[]")
    return _is_address(name) and ipaddress.ip_address(name).is_unspecified


def split_host(header: str) -> str | None:
    """The lower-case name or address in a Host header, without its port; None if it is malformed."""
    try:
        parts = urlsplit(f"//{header}")
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        return None
    clean = not (parts.path or parts.query or parts.fragment or parts.username is not None)
    return parts.hostname if clean and port_is_valid else None


async def send_problem(send: Send, status: int, detail: str, headers: Mapping[str, str]) -> None:
    """Answer with a problem document; the rest of the request is not read, so that the connection is closed."""
    body = json.dumps({"detail": detail}).encode()
    named = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close", **headers}
    encoded = [(name.lower().encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def _read_origin(header: str) -> str | None:
    try:
        return urlsplit(header).netloc.lower()
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
