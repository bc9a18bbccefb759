"""Shards of remote folders kept on this machine under their SHA-256, shared by all processes and bounded in size.

Each process holds a shared lock on every shard that it has open; only shards without one are removed, those first that
were opened longest ago. One lock per shard lets a single process of the machine download it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shards.errors import SettingsError
from shards.files import flush, name_file

CACHE_VARIABLE = "IGVG_CACHE"
LIMIT_VARIABLE = "IGVG_CACHE_LIMIT"
DEFAULT_LIMIT = 100 * 10**9
"""Bytes."""
_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?b?)", re.IGNORECASE)
# The name of a lock.
_ADMISSION = "admission"
# Left free on the disk whatever the limit.
_FREE_BYTES = 256 << 20


def find_cache_folder() -> Path:
    """IGVG_CACHE, or igvg in the user's folder for caches.

    Raises:
        SettingsError: there is neither.
    """
    given = os.environ.get(CACHE_VARIABLE)
    base = given or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(base).expanduser().absolute()
    except RuntimeError as error:
        what = f"there is no home folder for the cache of remote shards, {base}"
        raise SettingsError(f"{what}; set {CACHE_VARIABLE} to a folder") from error
    return folder if given else folder / "igvg"


def read_cache_limit() -> int:
    """Bytes that the cached shards may take: IGVG_CACHE_LIMIT, such as 200GB.

    Raises:
        SettingsError: it is no size.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    if not text:
        return DEFAULT_LIMIT
    if not (found := _SIZE.fullmatch(text.strip())):
        raise SettingsError(f"{LIMIT_VARIABLE} is {text!r}, which is no size; give one such as 200GB")
    unit = found[2].lower()
    return int(float(found[1]) * _UNITS[unit if unit.endswith("b") or not unit else f"{unit}b"])


@dataclass(frozen=True)
class ShardCache:
    """The cached shards: FOLDER/SHA256.tar, and the locks of downloads.

    Args:
        folder: is made when first needed.
        limit: bytes that all shards may take; shards in use may exceed it.
    """

    folder: Path
    limit: int

    def file(self, sha256: str) -> Path:
        """Where a shard lies or would lie."""
        return self.folder / f"{sha256}.tar"

    def temporary(self, sha256: str) -> Path:
        """Where a shard is written before it is complete; only who holds its lock may touch it.

        It stays after a failure, to be continued.
        """
        return self.folder / f".{sha256}.tmp"

    def open(self, sha256: str, size: int) -> int | None:
        """A descriptor of a cached shard, which keeps it from being removed until it is closed; None without one.

        A file of another size is not taken.

        Raises:
            OSError: it cannot be opened.
        """
        try:
            descriptor = os.open(self.file(sha256), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if os.fstat(descriptor).st_size != size:
            os.close(descriptor)
            return None
        # File systems without locks or times only lose the order of removal.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            os.utime(descriptor)
        return descriptor

    def has(self, sha256: str, size: int) -> bool:
        """Whether a shard of this size is there."""
        try:
            return self.file(sha256).stat().st_size == size
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def lock(self, sha256: str, *, wait: bool = True) -> Iterator[bool]:
        """Inside, no other process or thread downloads the shard; yields False if one does and `wait` is False."""
        with self._lock_file(sha256[:2], wait=wait) as locked:
            yield locked

    @contextlib.contextmanager
    def _lock_file(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / name
        with name_file(file):
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                except BlockingIOError:
                    yield False
                    return
                except OSError as error:
                    what = f"{self.folder} is on a file system without locks ({error.strerror})"
                    remedy = f"set {CACHE_VARIABLE} to a folder on a disk of this machine"
                    raise SettingsError(f"{what}; {remedy}") from error
                yield True
                # Closing is not enough where a process was forked meanwhile.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            finally:
                os.close(descriptor)

    def admit(self, sha256: str) -> None:
        """Give a shard that was completely written under its temporary name its own."""
        temporary = self.temporary(sha256)
        flush(temporary)
        # Others may have admitted shards since this one began.
        with self._lock_file(_ADMISSION):
            self.make_room(temporary.stat().st_size)
            temporary.replace(self.file(sha256))
        flush(self.folder)

    def discard(self, sha256: str) -> None:
        """Remove a damaged shard."""
        self.file(sha256).unlink(missing_ok=True)

    def make_room(self, size: int) -> bool:
        """Remove the shards that were opened longest ago and are not open until `size` more bytes fit.

        Returns:
            Whether they fit.
        """
        found = []
        for file in self.folder.glob("*.tar"):
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                found.append((status.st_mtime_ns, status.st_size, file))
        held = sum(held for _, held, _ in found)
        limit = min(self.limit, held + shutil.disk_usage(self.folder).free - _FREE_BYTES)
        if held + size <= limit:
            return True
        self._remove_unfinished()
        for _, removed, file in sorted(found):
            if held + size <= limit:
                break
            if _remove_unused(file):
                held -= removed
        return held + size <= limit

    def _remove_unfinished(self) -> None:
        """Remove what killed processes were writing."""
        for file in self.folder.glob(".*.tmp"):
            with self.lock(file.name[1:], wait=False) as locked:
                if locked:
                    file.unlink(missing_ok=True)


def release(descriptor: int) -> None:
    """Close what `ShardCache.open` has opened, also for processes that were forked meanwhile."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _remove_unused(file: Path) -> bool:
    """Remove a shard that no process has open; whether it is gone."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
