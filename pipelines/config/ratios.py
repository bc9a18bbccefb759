"""Shard folders with their ratios, as `--shards FOLDER:RATIO` gives them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.config.settings import MAX_RATIO, TrainSettings
from shards.errors import SettingsError
from shards.remote_addresses import normalize_url
from shards.remote_folders import find_remote

# In http://host:8000 the number is a port: a ratio follows a path.
_RATIO = re.compile(r"(?P<folder>(?:[A-Za-z][\w+.-]*://[^/]+/.*|(?![A-Za-z][\w+.-]*://).+)):(?P<ratio>\d+(?:\.\d+)?)")


def _exists(text: str) -> bool:
    return Path(text).exists()


def split_ratio(text: str, exists: Callable[[str], bool] = _exists) -> tuple[str, float | None]:
    """A folder or an address, and the ratio behind its last colon; None where there is none.

    A folder whose own name ends like a ratio is that folder; `exists` tells whether a text is one.
    """
    match = _RATIO.fullmatch(text)
    if match is None or exists(text):
        return text, None
    return match["folder"], float(match["ratio"])


def take_ratios(
    texts: Sequence[str], settings: TrainSettings, exists: Callable[[str], bool] = _exists, *, source: str = "--shards"
) -> tuple[list[str], TrainSettings]:
    """The folders or addresses of `--shards`, and the settings with their ratios; a folder without one has ratio 1.

    Args:
        texts: folders or addresses, each with its ratio or without.
        settings: of the training.
        exists: whether a text is a folder as it is, its end included.
        source: where the texts come from, for errors.

    Raises:
        SettingsError: a ratio is 0, too large or no number, or the settings hold other ratios.
    """
    for text in texts:
        _refuse_malformed(text, exists, source)
    found = [split_ratio(text, exists) for text in texts]
    folders = [folder for folder, _ in found]
    if all(ratio is None for _, ratio in found):
        return folders, settings
    ratios = tuple(1.0 if ratio is None else ratio for _, ratio in found)
    for text, ratio in zip(texts, ratios, strict=True):
        if not ratio:
            raise SettingsError(f"{source} {text}: a ratio is a number above 0; leave the folder out instead")
        if ratio > MAX_RATIO:
            raise SettingsError(f"{source} {text}: a ratio is a number up to {MAX_RATIO:,}; give smaller ones to all")
    if settings.ratios not in ((), ratios):
        raise SettingsError(
            f"{source} gives the ratios {_show(ratios)}, the settings {_show(settings.ratios)}; leave out either"
        )
    return folders, replace(settings, ratios=ratios)


def _refuse_malformed(text: str, exists: Callable[[str], bool], source: str) -> None:
    """Refuse a folder that is there, with something else than a number behind its colon."""
    folder, colon, end = text.rpartition(":")
    if colon and "://" not in text and split_ratio(text, exists)[1] is None and exists(folder) and not exists(text):
        raise SettingsError(f"{source} {text}: '{end}' is no ratio; give a number above 0, such as 2 or 0.7")


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


def check_distinct(folders: Sequence[Path], ratios: Sequence[float] = (), *, source: str = "--shards") -> None:
    """Refuse a folder that is given twice, also under two names: its expressions would come twice an epoch.

    Raises:
        SettingsError: two of the folders are the same; names both.
    """
    seen: dict[str, str] = {}
    for folder in folders:
        remote = find_remote(folder)
        shown = remote.shown if remote else str(folder)
        identity = normalize_url(remote.url) if remote else str(folder.resolve())
        if (first := seen.get(identity)) is not None:
            what = f"{shown} is given twice" if shown == first else f"{first} and {shown} are the same folder"
            raise SettingsError(f"{source}: {what}; give it once{', with one ratio' if ratios else ''}")
        seen[identity] = shown


def _show(ratios: Sequence[float]) -> str:
    return f"[{', '.join(f'{ratio:g}' for ratio in ratios)}]"
