"""Bodies of requests, bounded in size and time, and errors that nothing foresaw."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.serving.guard import send_problem

UNFORESEEN = "the server could not answer; its log says why"
"""The answer to an error that nothing foresaw."""


class BoundedBodies:
    """Refuses bodies that are too large or too slow, as an ASGI application around another one.

    Args:
        app: the application.
        max_bytes: bytes of a body at most.
        seconds: time in which a body must have arrived.
        log: is told of errors that nothing foresaw; these are answered without details.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, seconds: float, log: Callable[[Exception], None]) -> None:
        self.app, self.max_bytes, self.seconds, self.log = app, max_bytes, seconds, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length) > self.max_bytes:
            await send_problem(send, 413, self._describe_limit(), {})
            return
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, self._bound(receive), send_and_note)
        except asyncio.CancelledError:
            # The server ends before the request could be answered.
            if not started:
                await send_problem(send, 503, "the server is shutting down", {})
            raise
        except Exception as error:
            self.log(error)
            if not started:
                await send_problem(send, 500, UNFORESEEN, {})

    def _bound(self, receive: Receive) -> Receive:
        deadline, received, complete = time.monotonic() + self.seconds, 0, False

        async def receive_bounded() -> Message:
            nonlocal received, complete
            if complete:
                # Returns when the client disconnects.
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
            except TimeoutError as error:
                raise HTTPException(408, f"the request did not arrive in {self.seconds:g} seconds") from error
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > self.max_bytes:
                raise HTTPException(413, self._describe_limit())
            return message

        return receive_bounded

    def _describe_limit(self) -> str:
        return f"the request is larger than {self.max_bytes} bytes; send a smaller image file"
