"""Random access to the records and images of a split, at the offsets that the index holds."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from shards.errors import DataError, to_line
from shards.file_kinds import describe_content, explain_unreadable
from shards.files import read_range
from shards.index import Members, parse_record, read_index
from shards.record import ImageRecord
from shards.remote_folders import find_remote, open_cache
from shards.remote_prefetch import SHARDS_AHEAD, prefetch
from shards.remote_shards import RemoteShard, list_shards

_MAX_OPEN = 1000
# An open shard of a remote folder cannot be removed from the cache; opening one again takes microseconds.
_MAX_OPEN_REMOTE = 4
_REMEDY = "prepare the split again"


class ShardReader:
    """Random access to one split of a prepared folder.

    A tar is opened when first needed and read without moving a file position, so that a reader may be forked, pickled
    to another process or shared by threads. Of the files that the process may open a reader keeps a small part; beyond
    these it closes the tar that it opened first. The tars of a remote folder are fetched when first needed, and those
    that follow in the background while `fetches_ahead` is set; `remote_shards` are these, in order, or none.

    Raises:
        DataError: no such folder or split, or a damaged index.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.index = read_index(folder, split)
        self._remote = find_remote(folder)
        self.fetches_ahead = True
        self.remote_shards: list[RemoteShard] = []
        if self._remote is not None:
            entries = [(shard.name, shard.bytes, shard.sha256) for shard in self.index.shards]
            self.remote_shards = list_shards(self._remote, split, entries)
        self._last_opened = -1
        self._descriptors: dict[int, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of records."""
        return len(self.index)

    def record(self, index: int) -> ImageRecord:
        """The record of an index from 0 to len - 1, in shard order.

        Raises:
            DataError: the shard is missing or damaged; names shard and key.
        """
        data = self._read(index, self.index.documents, "json")
        return parse_record(data, self.shard_file(index), self.index.keys[index])

    def image(self, index: int) -> bytes:
        """The image file's bytes of a record.

        Raises:
            DataError: the shard is missing or damaged; names shard and key.
        """
        return self._read(index, self.index.images, self.index.extensions[index])

    def records(self) -> Iterator[ImageRecord]:
        """All records in shard order; no image is read."""
        for index in range(len(self)):
            yield self.record(index)

    def close(self) -> None:
        """Close the tars; the next read opens them again."""
        while self._descriptors:
            with contextlib.suppress(OSError):
                os.close(self._descriptors.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_descriptors"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        # Descriptors and locks belong to this process.
        return {name: value for name, value in self.__dict__.items() if name != "_lock"} | {"_descriptors": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def shard_file(self, index: int) -> Path | str:
        """The tar that holds a record: its path or, of a remote folder, its address without credentials."""
        name = self.index.shards[int(self.index.shard_indices[index])].name
        return self._remote.show(f"{self.split}/{name}") if self._remote else self.folder / self.split / name

    def _read(self, index: int, members: Members, extension: str) -> bytes:
        size, offset = int(members.sizes[index]), int(members.offsets[index])
        # No other thread closes the tar between the two.
        with self._lock:
            data = read_range(self._open(index), offset, size)
            if self._remote is not None and zlib.crc32(data) != members.crc32s[index]:
                self._discard(index)
                data = read_range(self._open(index), offset, size)
        if len(data) < size or zlib.crc32(data) != members.crc32s[index]:
            file = self.shard_file(index)
            if isinstance(file, Path):
                _refuse_other_content(file)
            state = f"breaks off after {len(data)} of {size} bytes" if len(data) < size else "is damaged"
            key = self.index.keys[index]
            what = f"member {key}.{extension} {state}"
            raise DataError(what, file=file, record=f"key {to_line(key)}", remedy=_REMEDY)
        return data

    def _open(self, index: int) -> int:
        shard = int(self.index.shard_indices[index])
        while shard not in self._descriptors:
            most = _max_open_tars() if self._remote is None else _MAX_OPEN_REMOTE
            if len(self._descriptors) >= most:
                self._close_oldest()
            try:
                self._descriptors[shard] = self._open_shard(shard)
            except OSError as error:
                if error.errno == errno.EMFILE and self._descriptors:
                    self._close_oldest()
                    continue
                file = Path(error.filename) if self._remote and error.filename else Path(self.shard_file(index))
                raise explain_unreadable(file, "a shard", error, _REMEDY) from error
        return self._descriptors[shard]

    def _open_shard(self, shard: int) -> int:
        if self._remote is None:
            return os.open(self.folder / self.split / self.index.shards[shard].name, os.O_RDONLY | os.O_CLOEXEC)
        descriptor = self.remote_shards[shard].open()
        # In random order, what is fetched ahead may push out what is needed next, unless everything fits.
        if self.fetches_ahead and (
            shard == self._last_opened + 1 or sum(each.bytes for each in self.index.shards) <= open_cache().limit
        ):
            prefetch(self.remote_shards[shard + 1 : shard + 1 + SHARDS_AHEAD])
        self._last_opened = shard
        return descriptor

    def _discard(self, index: int) -> None:
        """Close and remove a shard that was damaged in the cache."""
        shard = int(self.index.shard_indices[index])
        os.close(self._descriptors.pop(shard))
        open_cache().discard(self.remote_shards[shard].sha256)

    def _close_oldest(self) -> None:
        os.close(self._descriptors.pop(next(iter(self._descriptors))))


def _max_open_tars() -> int:
    """Tars that one reader keeps open; there may be a dozen readers and other open files."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MAX_OPEN if limit == resource.RLIM_INFINITY else min(_MAX_OPEN, max(1, limit // 16))


def _refuse_other_content(file: Path) -> None:
    """Raise DataError for a file that is no tar, such as a Git LFS pointer."""
    content = describe_content(file)
    if content is not None and content.kind != "tar":
        raise DataError(f"is {content.words}, not a shard", file=file, remedy=content.remedy or _REMEDY)
