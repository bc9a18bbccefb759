"""`igvg serve`: a page on this machine, and a JSON API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igvg_cli import options, render
from igvg_cli.checkpoints import download_checkpoint

_LIBRARIES = ("fastapi", "uvicorn", "python_multipart")


def serve(
    checkpoint: Annotated[
        Path,
        typer.Option(
            help="Folder that igvg train or igvg import made, a published file, shapes, or on the hub USER/REPO.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that other machines can reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="IGVG_SERVE_TOKEN",
            # On a narrow terminal the mark of the variable would be cut off.
            show_envvar=False,
            help="What requests must show as Authorization: Bearer TOKEN; IGVG_SERVE_TOKEN is read, too.",
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds after which a request is given up.", show_default="60")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where the network runs: cpu, cuda, cuda:1.", show_default="a GPU if present")
    ] = None,
    config: options.Config = None,
    set_: options.Set = None,
) -> None:
    """Answer in the browser: drop an image, type expressions, move thresholds. Ctrl-C stops.

    Example: igvg serve --checkpoint shapes

    Example: curl -F image=@street.jpg -F texts="the two red cars" http://127.0.0.1:8000/predict
    """
    from importlib.util import find_spec

    from shards.errors import SettingsError

    if missing := [name for name in _LIBRARIES if find_spec(name) is None]:
        names = ", ".join(missing).replace("_", "-")
        raise SettingsError(f"igvg serve needs {names}, which is not installed; pip install 'igvg[serve]'")

    from pipelines.config.overrides import read_settings
    from pipelines.config.settings import ServeSettings
    from pipelines.serving.guard import Access

    changes = [*(set_ or []), *([f"timeout_seconds={timeout}"] if timeout is not None else [])]
    settings = read_settings(ServeSettings(), config, changes)
    access = Access(host=host, token=_check_token(token))
    if access.token is None and not access.is_local:
        raise SettingsError(
            f"--host {host} lets other machines in; set a token in IGVG_SERVE_TOKEN or with --token, or listen on "
            "127.0.0.1"
        )

    from pipelines.serving.server import format_url, open_socket, serve

    # Before the network is loaded, which takes long.
    with open_socket(host, port) as bound:
        path = download_checkpoint(checkpoint)

        from pipelines.serving.app import build_app
        from pipelines.serving.service import open_service

        with render.show_progress("loading"):
            service = open_service(path, settings, device)
        app = build_app(service, access, _log_error)
        try:
            render.print_line(format_url(host, bound))
            serve(app, bound, settings.timeout_seconds)
        finally:
            service.close()


def _check_token(token: str | None) -> str | None:
    """The token; an empty one is none.

    Raises:
        SettingsError: it cannot be sent in a header.
    """
    from shards.errors import SettingsError

    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise SettingsError("the token holds a space or a character beyond ASCII; take letters and digits")
    return token or None


def _log_error(error: Exception) -> None:
    import traceback

    from igvg_cli.app import Debug

    text = " ".join(str(error).split())
    render.note(f"Error: a request could not be answered: {type(error).__name__}: {text}")
    if Debug.shown:
        render.note("".join(traceback.format_exception(error)))
