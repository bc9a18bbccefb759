"""Shard folders with their ratios, as `--shards FOLDER:RATIO` gives them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.config.settings import TrainSettings
from shards.errors import SettingsError

# In http://host:8000 the number is a port: a ratio follows a path.
_RATIO = re.compile(r"(?P<folder>(?:[A-Za-z][\w+.-]*://[^/]+/.*|(?![A-Za-z][\w+.-]*://).+)):(?P<ratio>\d+(?:\.\d+)?)")


def split_ratio(text: str) -> tuple[str, float | None]:
    """A folder or an address, and the ratio behind its last colon; None where there is none.

    A folder whose own name ends like a ratio is that folder.
    """
    match = _RATIO.fullmatch(text)
    if match is None or Path(text).exists():
        return text, None
    return match["folder"], float(match["ratio"])


def take_ratios(texts: Sequence[str], settings: TrainSettings) -> tuple[list[str], TrainSettings]:
    """The folders or addresses of `--shards`, and the settings with their ratios; a folder without one has ratio 1.

    Raises:
        SettingsError: a ratio is 0, or the settings hold other ratios.
    """
    found = [split_ratio(text) for text in texts]
    folders = [folder for folder, _ in found]
    if all(ratio is None for _, ratio in found):
        return folders, settings
    ratios = tuple(1.0 if ratio is None else ratio for _, ratio in found)
    if not all(ratios):
        text = texts[ratios.index(0)]
        raise SettingsError(f"--shards {text}: a ratio is a number above 0; leave the folder out instead")
    if settings.ratios not in ((), ratios):
        raise SettingsError(
            f"--shards gives the ratios {_show(ratios)}, the settings {_show(settings.ratios)}; leave out either"
        )
    return folders, replace(settings, ratios=ratios)


def check_ratios(ratios: Sequence[float], folders: Sequence[Path]) -> None:
    """Refuse ratios that are not one for each folder.

    Raises:
        SettingsError: there are more or fewer.
    """
    if ratios and len(ratios) != len(folders):
        raise SettingsError(
            f"ratios = {_show(ratios)} are {len(ratios)}, and there are {len(folders)} folders of shards; give one for "
            "each folder, in their order"
        )


def _show(ratios: Sequence[float]) -> str:
    return f"[{', '.join(f'{ratio:g}' for ratio in ratios)}]"
