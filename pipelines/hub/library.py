"""The library `huggingface_hub`, loaded when it is needed."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from importlib import metadata
from typing import Any


def load_library() -> Any:
    """The library `huggingface_hub`; the types of its functions differ between the versions that are allowed."""
    import huggingface_hub

    return huggingface_hub


def identify_igvg() -> dict[str, str]:
    """Who asks the hub, for the library's functions."""
    try:
        version = metadata.version("igvg")
    except metadata.PackageNotFoundError:
        # The sources are used without being installed.
        version = "unknown"
    return {"library_name": "igvg", "library_version": version}


@contextlib.contextmanager
def quiet_library() -> Iterator[None]:
    """Inside, the library logs errors alone, and sends no statistics on this machine unless the environment allows it.

    What failed is told in one line of ours.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils.logging import get_verbosity, set_verbosity

    level, silent = get_verbosity(), constants.HF_HUB_DISABLE_TELEMETRY
    set_verbosity(logging.ERROR)
    # The environment was read when the library was loaded, perhaps by transformers.
    constants.HF_HUB_DISABLE_TELEMETRY = silent or not os.environ.get("HF_HUB_DISABLE_TELEMETRY")
    try:
        yield
    finally:
        set_verbosity(level)
        constants.HF_HUB_DISABLE_TELEMETRY = silent


@contextlib.contextmanager
def hide_bars() -> Iterator[None]:
    """Inside, the library shows no progress bars, unless the environment says whether it does."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled() or os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"):
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
