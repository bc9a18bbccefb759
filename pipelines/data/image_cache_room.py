"""Room for image caches: which files of a prepared folder's cache are removed, so that all keep within a limit."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.data.image_cache import CACHE_FOLDER, CACHE_SUFFIX, digest_source, read_source
from shards.errors import DataError
from shards.index import list_splits, read_index
from shards.progress import log


@dataclass(frozen=True, kw_only=True)
class _Other:
    """A cache file that is not to be read now."""

    file: Path
    bytes: int
    used: float
    """When it was opened last to be read or built, in seconds."""
    abandoned: bool
    """No split of the folder holds its images any more."""
    removable: bool
    """It is a cache."""


def name_lock(file: Path) -> Path:
    """The file that is locked by who builds or removes a cache file."""
    return file.with_name(f".{file.name}.lock")


def make_room(folders: Iterable[Path], files: Collection[Path], needed: int, limit: int) -> int:
    """Remove cache files that hold other images than the splits of their folder, and others if there is no room.

    Files that a process reads or builds stay, and so do files that are no caches.

    Args:
        folders: prepared folders.
        files: the cache files that are to be read or built.
        needed: bytes of these at most; 0: none is to be built, and no room is needed.
        limit: bytes of all caches of the folders at most. Those used least recently are removed first.

    Returns:
        Bytes of the other caches that are left.
    """
    others = [other for folder in dict.fromkeys(folders) for other in _find_others(folder, files)]
    others.sort(key=lambda other: (not other.abandoned, other.used))
    total = sum(other.bytes for other in others)
    removed: list[_Other] = []
    for other in others:
        demanded = needed and total + needed > limit
        if other.removable and (other.abandoned or demanded) and _remove(other.file):
            removed.append(other)
            total -= other.bytes
    if removed:
        abandoned = sum(other.abandoned for other in removed)
        reasons = [
            f"{count} {reason}"
            for count, reason in (
                (abandoned, "of images that no split holds any more"),
                (len(removed) - abandoned, f"used least recently, for the limit of {format_bytes(limit)}"),
            )
            if count
        ]
        freed = format_bytes(sum(other.bytes for other in removed))
        names = ", ".join(sorted({str(other.file.parent) for other in removed}))
        log(f"image caches removed from {names}, {freed}: {', '.join(reasons)}")
    return total


def format_bytes(count: int) -> str:
    """A number of bytes in GB, or in MB below 0.1 GB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def _find_others(folder: Path, files: Collection[Path]) -> Iterator[_Other]:
    found = [file for file in sorted((folder / CACHE_FOLDER).glob(f"*{CACHE_SUFFIX}")) if file not in files]
    sources = _list_sources(folder) if found else None
    for file in found:
        # Another process may have removed it, or it cannot be read.
        with contextlib.suppress(OSError):
            status, source = file.stat(), read_source(file)
            abandoned = source is not None and sources is not None and source not in sources
            yield _Other(
                file=file, bytes=status.st_size, used=status.st_mtime, abandoned=abandoned, removable=source is not None
            )


def _list_sources(folder: Path) -> set[str] | None:
    """The sources of all splits of a folder; None if they are not all known."""
    try:
        return {digest_source(read_index(folder, split)) for split in list_splits(folder)}
    except DataError:
        return None


def _remove(file: Path) -> bool:
    """Remove a cache file, unless a process reads or builds it, or the folder cannot be written."""
    with contextlib.ExitStack() as stack:
        try:
            for path, flags in ((name_lock(file), os.O_RDWR | os.O_CREAT), (file, os.O_RDONLY)):
                descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
                # Closing it ends the lock.
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()
            name_lock(file).unlink()
        except OSError:
            return False
    return True
