"""Records and images of a split by number, read straight from the tars at the offsets that the index knows."""

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

from shards.errors import DataError
from shards.file_kinds import describe_content, explain_unreadable
from shards.index import Members, parse_record, read_index
from shards.record import ImageRecord

_MOST_OPEN = 1000
_REMEDY = "prepare the split again"


class ShardReader:
    """Random access to one split of a prepared folder.

    It opens each tar once, when first needed, and reads without moving a file position, so that a reader may be
    forked, pickled to another process or shared by threads. It keeps a small part of the files open that the process
    may open, and closes the tar that it opened first for another one.

    Raises:
        DataError: no such folder or split, or a damaged index.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.index = read_index(folder, split)
        self._descriptors: dict[int, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of records."""
        return len(self.index)

    def record(self, number: int) -> ImageRecord:
        """The record of a number from 0 to len - 1, in shard order.

        Raises:
            DataError: the shard is missing or damaged; names shard and key.
        """
        data = self._read(number, self.index.documents, "json")
        return parse_record(data, self._locate(number), self.index.keys[number])

    def image(self, number: int) -> bytes:
        """The image file's bytes of a record.

        Raises:
            DataError: the shard is missing or damaged; names shard and key.
        """
        return self._read(number, self.index.images, self.index.extensions[number])

    def records(self) -> Iterator[ImageRecord]:
        """All records in shard order; no image is read."""
        for number in range(len(self)):
            yield self.record(number)

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
        # Another process has other descriptors, and needs no lock of this one.
        return {name: value for name, value in self.__dict__.items() if name != "_lock"} | {"_descriptors": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def _locate(self, number: int) -> Path:
        shard = int(self.index.shard_indices[number])
        return self.folder / self.split / self.index.shards[shard].name

    def _read(self, number: int, members: Members, extension: str) -> bytes:
        size, offset = int(members.sizes[number]), int(members.offsets[number])
        # No other thread closes the tar between the two.
        with self._lock:
            data = os.pread(self._open(number), size, offset)
        if zlib.crc32(data) != members.crc32s[number]:
            _refuse_other_files(self._locate(number))
            state = f"breaks off after {len(data)} of {size} bytes" if len(data) < size else "is damaged"
            key = self.index.keys[number]
            raise DataError(
                f"member {key}.{extension} {state}",
                file=self._locate(number),
                record=f"key {key}",
                remedy=_REMEDY,
            )
        return data

    def _open(self, number: int) -> int:
        shard = int(self.index.shard_indices[number])
        while shard not in self._descriptors:
            file = self._locate(number)
            if len(self._descriptors) >= _count_allowed():
                self._close_first()
            try:
                self._descriptors[shard] = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                if error.errno == errno.EMFILE and self._descriptors:
                    self._close_first()
                    continue
                raise explain_unreadable(file, "a shard", error, _REMEDY) from error
        return self._descriptors[shard]

    def _close_first(self) -> None:
        os.close(self._descriptors.pop(next(iter(self._descriptors))))


def _count_allowed() -> int:
    """Tars that one reader keeps open: there may be a dozen readers, and others open files too."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST_OPEN if limit == resource.RLIM_INFINITY else min(_MOST_OPEN, max(1, limit // 16))


def _refuse_other_files(file: Path) -> None:
    """Refuse a file that holds something else than a tar, such as the pointer that a repository keeps in its place."""
    content = describe_content(file)
    if content is not None and content.kind != "tar":
        raise DataError(f"is {content.words}, not a shard", file=file, remedy=content.remedy or _REMEDY)
