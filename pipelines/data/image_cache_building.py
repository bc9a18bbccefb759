"""Building of image caches: one process builds a file, others wait for it, and an interrupted build goes on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.data.image_cache import (
    CacheLayout,
    ImageCache,
    describe_cache,
    find_cache,
    read_entries,
    write_entry,
)
from pipelines.data.image_cache_room import format_bytes, make_room, name_lock
from shards.errors import DataError
from shards.files import name_file, remove_drafts, replace_file
from shards.index import list_splits
from shards.progress import log, report_progress
from shards.reader import ShardReader
from shards.workers import map_ordered

_Part = tuple[ShardReader, CacheLayout]

GIGABYTE = 1_000_000_000
# More than any disk has.
_MAX_GIGABYTES = 1e9
_IMAGES_PER_TASK = 8
_POLL_SECONDS = 0.5
_READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})


def build_caches(
    readers: Sequence[ShardReader], size: int, *, limit: float, workers: int, check: bool = False
) -> list[ImageCache]:
    """The caches of some splits at `size` pixels, built where they are not complete.

    Args:
        readers: the splits.
        size: side of the images in pixels.
        limit: gigabytes of all caches in the folders together at most, also of other sizes and splits: those used least
            recently are removed if they leave too little room. Images that do not fit are decoded at every use.
        workers: processes that decode; 0: this one.
        check: also compare all images that are there with their checksums, and stop where the files cannot be written;
            otherwise each image is compared when it is first read, and of such files what is there is used.

    Raises:
        DataError: an image is damaged, or the disk has too little space.
        OSError: a file cannot be written.
        WorkerError: a worker died.
    """
    total = int(min(_MAX_GIGABYTES, limit) * GIGABYTE)
    layouts = [describe_cache(reader.index, size) for reader in readers]
    files = [find_cache(reader.folder, layout) for reader, layout in zip(readers, layouts, strict=True)]
    # A split may be given twice.
    parts = {file: (reader, layout) for file, reader, layout in zip(files, readers, layouts, strict=True)}
    needed = [layout.end(count) for (_, layout), count in _share_limit(parts.values(), total) if count]
    others = make_room([reader.folder for reader in readers], parts, sum(needed), total)
    caches = {
        find_cache(reader.folder, layout): _build_cache(reader, layout, count, workers, check=check)
        for (reader, layout), count in _share_limit(parts.values(), total - others)
    }
    return [caches[file] for file in files]


def _share_limit(parts: Iterable[_Part], limit: int) -> Iterator[tuple[_Part, int]]:
    """Each split with how many of its images are cached, the first ones first, in `limit` bytes together."""
    for reader, layout in parts:
        count = layout.fit(limit)
        limit -= layout.end(count) if count else 0
        yield (reader, layout), count


def cache_folder(shards: Path, size: int, *, limit: float, workers: int | None = None) -> list[ImageCache]:
    """The caches of all splits of a prepared folder, built and checked; `workers` None: one for each CPU.

    Raises:
        DataError, OSError, WorkerError: as `build_caches`.
    """
    processes = os.cpu_count() or 1 if workers is None else workers
    readers = [ShardReader(shards, split) for split in list_splits(shards)]
    return build_caches(readers, size, limit=limit, workers=processes, check=True)


def _build_cache(reader: ShardReader, layout: CacheLayout, count: int, workers: int, *, check: bool) -> ImageCache:
    file = find_cache(reader.folder, layout)
    total = layout.num_images
    if not count:
        log(f"image cache {file}: none of its {total:,} images fits the limit")
        return ImageCache(file, layout)
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(_open_locked(file, layout))
        except OSError as error:
            if check or error.errno not in _READ_ONLY:
                raise
            # Shards of a group often lie where its members cannot write.
            cache = ImageCache(file, layout)
            log(f"image cache {file}: cannot be written; {len(cache):,} of {total:,} images are in it")
            return cache
        missing = _find_missing(descriptor, layout, count, check=check)
        state = f"{len(missing):,} of them are to be decoded" if len(missing) else "complete"
        rest = f"; {total - count:,} more do not fit the limit" if count < total else ""
        log(f"image cache {file}: {count:,} images, {format_bytes(layout.end(count))}, {state}{rest}")
        if len(missing):
            with name_file(file):
                _refuse_full_disk(file, layout.image_bytes * len(missing))
                _write_images(reader, file, layout, missing, descriptor, workers)
                os.fsync(descriptor)
    return ImageCache(file, layout)


@contextlib.contextmanager
def _open_locked(file: Path, layout: CacheLayout) -> Iterator[int]:
    """A descriptor of the cache file, which is made if there is none, while no other process builds it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(file, layout)
    try:
        remove_drafts(file)
        if not _begins_with(file, layout.header):
            with replace_file(file) as draft, draft.open("wb") as stream:
                stream.write(layout.header)
                stream.truncate(layout.first_image)
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        try:
            # Room is made by removing what was used least recently.
            os.utime(file)
            yield descriptor
        finally:
            os.close(descriptor)
    finally:
        # Closing it ends the lock, as the end of the process does.
        os.close(lock)


def _lock(file: Path, layout: CacheLayout) -> int:
    """A descriptor that holds the lock of a cache file."""
    while True:
        lock = os.open(name_lock(file), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _wait_for_lock(lock, file, layout)
            # A process that removed the cache has removed the lock with it.
            if os.path.samestat(os.fstat(lock), name_lock(file).stat()):
                return lock
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _wait_for_lock(lock: int, file: Path, layout: CacheLayout) -> None:
    waiting = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waiting:
                log(f"image cache {file}: another process builds it; waiting for it")
            waiting = True
            time.sleep(_POLL_SECONDS)
            report_progress(len(ImageCache(file, layout)), layout.num_images, "waiting for the image cache")
        except OSError as error:
            # NOTE: without locks two processes write the same bytes to the same places, which costs time alone.
            if error.errno not in _NO_LOCKS:
                raise
            return
        else:
            return


def _begins_with(file: Path, header: bytes) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(len(header)) == header
    except FileNotFoundError:
        return False


def _find_missing(descriptor: int, layout: CacheLayout, count: int, *, check: bool) -> NDArray[np.int64]:
    """The images among the first `count` that are not there, or, with `check`, differ from their CRC-32.

    The table is cleared of those beyond the end of a file that was cut short.
    """
    crc32s = read_entries(descriptor, layout)
    whole = max(0, os.fstat(descriptor).st_size - layout.first_image) // layout.image_bytes
    bad = [index for index in np.flatnonzero(crc32s >= 0).tolist() if index >= whole]
    if check:
        for done, index in enumerate(np.flatnonzero(crc32s[:whole] >= 0).tolist(), start=1):
            if zlib.crc32(os.pread(descriptor, layout.image_bytes, layout.end(index))) != crc32s[index]:
                bad.append(index)
            report_progress(done, whole, "checking the image cache")
    for index in bad:
        write_entry(descriptor, index, None)
    crc32s[bad] = -1
    return np.flatnonzero(crc32s[:count] < 0)


def _refuse_full_disk(file: Path, needed: int) -> None:
    free = shutil.disk_usage(file.parent).free
    if needed > free:
        what = f"the image cache needs {format_bytes(needed)} more, and the disk has {format_bytes(free)} left"
        raise DataError(what, file=file, remedy="free space, or lower its limit (cache_limit, --cache-limit)")


def _write_images(
    reader: ShardReader, file: Path, layout: CacheLayout, missing: NDArray[np.int64], descriptor: int, workers: int
) -> None:
    # Torch takes seconds to load: only when there is something to decode, and before the workers are forked.
    import pipelines.data.image_reading

    assert pipelines.data.image_reading
    tasks = np.split(missing, range(_IMAGES_PER_TASK, len(missing), _IMAGES_PER_TASK))
    os.ftruncate(descriptor, max(os.fstat(descriptor).st_size, layout.end(int(missing[-1]) + 1)))
    done = 0
    checksums = map_ordered(
        partial(_write_some, reader, file, layout),
        (list(map(int, task)) for task in tasks),
        workers=workers,
        remedy="run the same command again, it goes on",
        initialize=_limit_threads,
    )
    with contextlib.closing(checksums):
        for task, crc32s in zip(tasks, checksums, strict=True):
            # Only now: what the table says is there has been written.
            for index, crc32 in zip(task, crc32s, strict=True):
                write_entry(descriptor, int(index), crc32)
            done += len(task)
            report_progress(done, len(missing), "image cache")


def _write_some(reader: ShardReader, file: Path, layout: CacheLayout, indices: list[int]) -> list[int]:
    """Decode some images and write them to their places; returns their CRC-32s."""
    from pipelines.data.image_reading import read_resized

    crc32s = []
    with file.open("r+b") as stream, name_file(file):
        for index in indices:
            resized = read_resized(reader.image(index), reader.record(index).file_name, layout.size)
            stream.seek(layout.end(index))
            stream.write(resized.data)
            crc32s.append(zlib.crc32(resized.data))
    return crc32s


def _limit_threads() -> None:
    import torch

    torch.set_num_threads(1)
