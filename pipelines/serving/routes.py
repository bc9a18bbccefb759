"""The API: what the page asks for, and any program may."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from importlib import metadata
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Depends, Form, Path, Request, Response
from fastapi.exceptions import HTTPException

from pipelines.config.settings import PostprocessSettings
from pipelines.serving.answers import build_answer, write_mask, write_masks
from pipelines.serving.documents import (
    MAX_TEXT_LENGTH,
    Answer,
    Health,
    LimitsDocument,
    PostprocessFields,
    PredictForm,
    Problem,
    apply_fields,
    describe_settings,
)
from pipelines.serving.results import KeptResult
from pipelines.serving.service import MEBIBYTE, GroundingService

T = TypeVar("T")
RETRY_AFTER = {"Retry-After": "2"}
_REASONS = {
    400: "The request is malformed.",
    401: "The server needs its token.",
    403: "The request names another server, or comes from a page of another origin.",
    404: "No such result: it was never made, or is no longer kept.",
    408: "The request did not arrive in time.",
    413: "The request or the image is too large.",
    422: "The image cannot be read, or a field is missing or invalid.",
    500: "The server could not answer.",
    503: "The server is busy, or did not finish in time; `Retry-After` says when to come again.",
}
_RETRY_HEADER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}


def document_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses of these statuses for the OpenAPI description."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status in sorted({400, 401, 403, 408, 413, 500, *statuses}):
        responses[status] = {"model": Problem, "description": _REASONS[status]}
        if status == 503:
            responses[status]["headers"] = _RETRY_HEADER
    return responses


async def find_service(request: Request) -> GroundingService:
    """The service of the application."""
    service: GroundingService = request.app.state.service
    return service


async def find_result(service: Annotated[GroundingService, Depends(find_service)], result_id: ResultId) -> KeptResult:
    """The kept result that a path names.

    Raises:
        HTTPException: 404, there is none.
    """
    result = service.results.find(result_id)
    if result is None:
        raise HTTPException(404, "no such result; it may no longer be kept: predict again")
    return result


ResultId = Annotated[str, Path(alias="id", min_length=1, max_length=64, description="The `id` of an answer.")]
Service = Annotated[GroundingService, Depends(find_service)]
Result = Annotated[KeptResult, Depends(find_result)]
Fields = Annotated[PostprocessFields, Body()]
_PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}
_ZIP: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}
}
router = APIRouter()


@router.post("/predict", responses=document_problems(422, 503), summary="Find what expressions refer to")
async def predict(
    request: Request,
    service: Service,
    form: Annotated[PredictForm, Form(media_type="multipart/form-data")],
) -> Answer:
    """The image and its expressions go through the network once; the raw outputs are kept under the answer's `id`."""
    texts, most = form.texts, service.settings.max_expressions
    if len(texts) > most:
        raise HTTPException(422, f"texts: there are {len(texts)} expressions; send at most {most} at a time")
    settings = apply_fields(service.settings.postprocess, form)
    with service.admit():
        return await _finish(request, service, service.predict(form.image.file, texts, settings, form.max_side))


@router.post("/results/{id}", responses=document_problems(404, 422, 503), summary="Post-process again")
async def postprocess(
    request: Request, service: Service, result_id: ResultId, result: Result, fields: Fields
) -> Answer:
    """The answer of a kept result under other settings; nothing goes through the network."""
    settings = _read_settings(service, fields)
    work = service.run_in_thread(lambda check: build_answer(result_id, result, settings, fields.max_side, check=check))
    return await _finish(request, service, work)


@router.post(
    "/results/{id}/masks", responses=document_problems(404, 422, 503) | _ZIP, response_class=Response,
    summary="Masks as a ZIP file",
)  # fmt: skip
async def masks(request: Request, service: Service, result: Result, fields: Fields) -> Response:
    """PNG masks at the size of the image, of every expression and instance, and `index.json`."""
    settings = _read_settings(service, fields)
    content = await _finish(
        request, service, service.run_in_thread(lambda check: write_masks(result, settings, check=check))
    )
    return _attach(content, "application/zip", "masks.zip")


@router.post(
    "/results/{id}/masks/{number}", responses=document_problems(404, 422, 503) | _PNG, response_class=Response,
    summary="One expression's mask",
)  # fmt: skip
async def mask(
    request: Request,
    service: Service,
    result: Result,
    number: Annotated[int, Path(ge=1, le=1 << 16, description="The expression, counted from 1.")],
    fields: Fields,
) -> Response:
    """The mask of one expression at the size of the image, as PNG: 255 inside, 0 outside."""
    if number > len(result.raw):
        raise HTTPException(404, f"the result has {len(result.raw)} expressions")
    settings = _read_settings(service, fields)
    content = await _finish(request, service, service.run_in_thread(lambda _: write_mask(result, number, settings)))
    return _attach(content, "image/png", f"mask-{number}.png")


@router.delete(
    "/results/{id}", status_code=204, response_model=None, responses=document_problems(404, 422),
    summary="Forget a result",
)  # fmt: skip
async def forget(service: Service, result_id: ResultId) -> None:
    """Drop the kept raw outputs."""
    if not service.results.remove(result_id):
        raise HTTPException(404, "no such result; it may no longer be kept")


@router.get("/health", responses=document_problems(), summary="State, limits and defaults")
async def health(service: Service) -> Health:
    """What the server does now, what requests may hold, and the settings that answers have by default."""
    settings = service.settings
    return Health(
        status="ok",
        version=metadata.version("igvg"),
        parameters=service.num_parameters,
        network_side=service.processor.image_size,
        forward_passes=service.queue.forward_passes,
        expressions=service.queue.examples_run,
        waiting=service.waiting,
        results=len(service.results),
        limits=LimitsDocument(
            upload_bytes=settings.max_upload_mebibytes * MEBIBYTE,
            image_pixels=settings.max_megapixels * 10**6,
            expressions=settings.max_expressions,
            expression_characters=MAX_TEXT_LENGTH,
            kept_seconds=settings.kept_minutes * 60,
        ),
        defaults=describe_settings(settings.postprocess),
    )


def _read_settings(service: GroundingService, fields: PostprocessFields) -> PostprocessSettings:
    return apply_fields(service.settings.postprocess, fields)


def _attach(content: bytes, media_type: str, name: str) -> Response:
    return Response(content, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})


async def _finish(request: Request, service: GroundingService, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work; it is cancelled when its time is over, or the client has gone.

    Raises:
        HTTPException: 503, the time is over; 499, which nobody receives, the client has gone.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_wait_for_disconnect(request))
    seconds = service.settings.timeout_seconds
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise HTTPException(499, "the client has gone")
        raise HTTPException(503, f"there was no answer in {seconds:g} seconds", RETRY_AFTER)
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
