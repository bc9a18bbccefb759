"""The page and what it loads, all read when the server starts: no request ever names a file of the machine."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter, Response
from fastapi.exceptions import HTTPException

from pipelines.serving.guard import STATIC_PREFIX

_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_PAGE = "index.html"
_SOURCES = {
    "pipelines.serving": (
        _PAGE, "serve.css", "api.js", "image_input.js", "settings.js", "stage.js", "serve.js",
    ),
    "pipelines.report": (
        "page.css", "gallery.css", "theme.js", "masks.js", "layers.js", "elements.js", "facts.js",
    ),
}  # fmt: skip
"""The served files of each package's folder `static`."""


def build_router() -> APIRouter:
    """Routes for the page at `/` and its files below `/static/`."""
    files = {
        name: (resources.files(package) / "static" / name).read_bytes()
        for package, names in _SOURCES.items()
        for name in names
    }
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page() -> Response:
        return Response(files[_PAGE], media_type=_TYPES["html"])

    @router.get(STATIC_PREFIX + "{name}")
    async def file(name: str) -> Response:
        if name not in files or name == _PAGE:
            raise HTTPException(404, "no such file")
        return Response(files[name], media_type=_TYPES[name.rpartition(".")[2]])

    return router
