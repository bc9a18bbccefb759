"""The application: routes, errors as problem documents, and the guards around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from pipelines.serving import static_files
from pipelines.serving.guard import Access, Guard
from pipelines.serving.request_bodies import UNFORESEEN, BoundedBodies
from pipelines.serving.routes import RETRY_AFTER, router
from pipelines.serving.service import MEBIBYTE, BusyError, GroundingService
from pipelines.serving.uploads import TooLargeError
from shards.errors import DataError, SettingsError

_DESCRIPTION = "Generalized visual grounding: what expressions refer to in an image, as boxes and masks."


def build_app(service: GroundingService, access: Access, log: Callable[[Exception], None]) -> ASGIApp:
    """The application of a server.

    Args:
        service: answers the requests.
        access: who may use it.
        log: is told of errors that nothing foresaw.
    """
    # FastAPI's own pages of documentation load scripts from elsewhere.
    app = FastAPI(
        title="igvg", version=metadata.version("igvg"), description=_DESCRIPTION, docs_url=None, redoc_url=None
    )
    app.state.service = service
    app.include_router(router)
    app.include_router(static_files.build_router())
    # Starlette answers Exception by this, and raises it again: `BoundedBodies` logs it.
    for kind in (HTTPException, RequestValidationError, BusyError, DataError, SettingsError, Exception):
        app.add_exception_handler(kind, _explain)
    if access.token is not None:
        _document_token(app)
    bounded = BoundedBodies(
        app, max_bytes=service.settings.max_upload_mebibytes * MEBIBYTE, seconds=service.settings.timeout_seconds,
        log=log,
    )  # fmt: skip
    return Guard(bounded, access)


async def _explain(_request: Request, error: Exception) -> JSONResponse:
    """The problem document of an error; it repeats nothing that the request held."""
    if isinstance(error, HTTPException):
        return _problem(error.status_code, str(error.detail), error.headers)
    if isinstance(error, RequestValidationError):
        return _problem(422, _describe(error))
    if isinstance(error, BusyError):
        return _problem(503, "too many requests are waiting; come again in some seconds", RETRY_AFTER)
    if isinstance(error, TooLargeError):
        return _problem(413, str(error))
    if isinstance(error, DataError | SettingsError):
        return _problem(422, str(error))
    return _problem(500, UNFORESEEN)


def _problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


def _describe(error: RequestValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return "the body is no JSON document"
    if first["loc"][-1] == "image" and first["type"] == "value_error":
        return "image: expected a file, found a text; with curl, -F image=@FILE"
    # The first part says whether it was in the path or in the body.
    where = ".".join(str(part) for part in first["loc"][1:])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def _document_token(app: FastAPI) -> None:
    """Say in the OpenAPI description that every operation needs the token."""
    build = app.openapi

    def describe() -> dict[str, Any]:
        document = build()
        document.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        return document

    app.openapi = describe  # type: ignore[method-assign]
