"""The resized images of a split in one file, shared by all processes that read it.

SHARDS/cache/SPLIT-SIZE-KEY.images holds a header, a table and the images at fixed places:

```
4096 bytes               one line of JSON, padded with spaces: format, size, number of images, key, source
8 bytes for each image   little-endian: 0, or 2^32 + the CRC-32 of the image that is there; padded to 4096 bytes
3 S S bytes for each     (S, S, 3) RGB, as `Processor.read` makes it of the image's file
```

The source is a digest of the split's images. The key is one of these, of the versions of the libraries that decode and
resize them, and of the kind of processor, whose kernels round differently: other shards, sizes, versions and processors
have another file. An image counts only if the table has its CRC-32, which is written after it, and every process
compares the two when it first reads the image. So an interrupted build goes on where it stopped, and of a file that is
damaged by then no pixel is used: such images are decoded again. Each image is checked at its first use and not the
whole file at once, because gigabytes may be needed late, or by another process; and not at each use, because that takes
0.1 ms of the 0.4 ms of an example. Later damage is left to the next process and to `find_damage`.

Images are read at their offsets and not through a mapping of the file into memory. Processes share the pages of the
file either way, and a mapped file that is cut short ends the process. An image takes 39 µs of processor time so and
29 µs from a mapping (320 pixels, `python -m tests.benchmarks data`), of about 390 µs for an example.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.files import read_range
from shards.index import ShardIndex
from shards.progress import log

CACHE_FOLDER = "cache"
CACHE_SUFFIX = ".images"
_FORMAT = 2
_PAGE = 4096
_ENTRY_BYTES = 8
_PRESENT = 1 << 32
_KEY_LENGTH = 12


@dataclass(frozen=True, kw_only=True)
class CacheLayout:
    """What decides the bytes of a cache file, and where they are."""

    split: str
    size: int
    """Side of the images in pixels."""
    num_images: int
    key: str
    source: str = ""
    """Digest of the image files."""

    @property
    def name(self) -> str:
        """The name of the file."""
        return f"{self.split}-{self.size}-{self.key[:_KEY_LENGTH]}{CACHE_SUFFIX}"

    @property
    def header(self) -> bytes:
        """The first bytes of the file."""
        values = {"format": _FORMAT, "size": self.size, "images": self.num_images, "key": self.key}
        return json.dumps(values | {"source": self.source}).encode().ljust(_PAGE - 1) + b"\n"

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return 3 * self.size * self.size

    @property
    def first_image(self) -> int:
        """Offset of the images in bytes."""
        return _PAGE + -(-self.num_images * _ENTRY_BYTES // _PAGE) * _PAGE

    def end(self, count: int) -> int:
        """Bytes of a file with the first `count` images."""
        return self.first_image + count * self.image_bytes

    def fit(self, limit: int) -> int:
        """How many images a file of at most `limit` bytes holds."""
        return min(self.num_images, max(0, limit - self.first_image) // self.image_bytes)


def describe_cache(index: ShardIndex, size: int) -> CacheLayout:
    """The layout of the cache of a split's images at `size` pixels."""
    source = digest_source(index)
    values = [_FORMAT, size, index.split, _list_versions(), source]
    key = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return CacheLayout(split=index.split, size=size, num_images=len(index), key=key, source=source)


def digest_source(index: ShardIndex) -> str:
    """The digest of a split's image files, by their sizes and checksums in order."""
    digest = hashlib.sha256(index.images.sizes.astype("<i8").tobytes())
    digest.update(index.images.crc32s.astype("<i8").tobytes())
    return digest.hexdigest()


def read_source(file: Path) -> str | None:
    """The source of a cache file, whatever its key; "" if an earlier igvg wrote it, None if its header is none.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream, contextlib.suppress(ValueError, RecursionError):
        values = json.loads(stream.read(_PAGE))
        if isinstance(values, dict) and {"format", "size", "images", "key"} <= values.keys():
            return str(values.get("source", "")) if values["format"] == _FORMAT else ""
    return None


def find_cache(shards: Path, layout: CacheLayout) -> Path:
    """Where the cache of a prepared folder is, or would be."""
    return shards / CACHE_FOLDER / layout.name


class ImageCache:
    """The images of one cache file; may be forked, or pickled to another process."""

    def __init__(self, file: Path, layout: CacheLayout) -> None:
        self.file, self.layout = file, layout
        self._checked = np.zeros(layout.num_images, dtype=bool)
        self._descriptor: int | None = None
        self._complained = False

    def read(self, index: int) -> NDArray[np.uint8] | None:
        """The image (S, S, 3) of a record; None if it is not there, or damaged."""
        crc32 = int(self._crc32s[index])
        if crc32 < 0 or self._descriptor is None:
            return None
        size = self.layout.size
        pixels = np.empty((size, size, 3), dtype=np.uint8)
        count = os.preadv(self._descriptor, [pixels.data], self.layout.end(index))
        if count < pixels.nbytes or not (self._checked[index] or zlib.crc32(pixels.data) == crc32):
            self._refuse(index, "breaks off" if count < pixels.nbytes else "is damaged")
            return None
        self._checked[index] = True
        return pixels

    def __len__(self) -> int:
        """Number of images that are there."""
        return int(np.count_nonzero(self._crc32s >= 0))

    def __getstate__(self) -> Mapping[str, Any]:
        # The descriptor belongs to this process.
        return {name: value for name, value in self.__dict__.items() if name != "_crc32s"} | {"_descriptor": None}

    def __del__(self) -> None:
        if (descriptor := self.__dict__.get("_descriptor")) is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    @cached_property
    def _crc32s(self) -> NDArray[np.int64]:
        """The CRC-32 of each image that was there when the file was opened, else -1."""
        with contextlib.suppress(FileNotFoundError):
            self._descriptor = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)
            with contextlib.suppress(OSError):
                # No other process removes the file to make room while this one reads it.
                fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.pread(self._descriptor, _PAGE, 0) == self.layout.header:
                return read_entries(self._descriptor, self.layout)
        return np.full(self.layout.num_images, -1, dtype=np.int64)

    def _refuse(self, index: int, state: str) -> None:
        """Take an image out of the table, so that the next build makes it again."""
        if not self._complained:
            log(f"{self.file} {state} at image {index}: such images are decoded anew, and cached again by the next run")
        self._complained, self._crc32s[index] = True, -1
        with contextlib.suppress(OSError):
            descriptor = os.open(self.file, os.O_WRONLY | os.O_CLOEXEC)
            try:
                write_entry(descriptor, index, None)
            finally:
                os.close(descriptor)


def write_entry(descriptor: int, index: int, crc32: int | None) -> None:
    """Write an image's place in the table: its CRC-32, or None where it is not there."""
    entry = 0 if crc32 is None else _PRESENT + crc32
    os.pwrite(descriptor, entry.to_bytes(_ENTRY_BYTES, "little"), _PAGE + _ENTRY_BYTES * index)


def read_entries(descriptor: int, layout: CacheLayout) -> NDArray[np.int64]:
    """The CRC-32 of each image that the table says is there, else -1, (N,)."""
    table = os.pread(descriptor, layout.num_images * _ENTRY_BYTES, _PAGE)
    entries = np.zeros(layout.num_images, dtype="<i8")
    entries[: len(table) // _ENTRY_BYTES] = np.frombuffer(table, dtype="<i8", count=len(table) // _ENTRY_BYTES)
    return np.where(entries & _PRESENT, entries & (_PRESENT - 1), -1)


def find_damage(file: Path) -> str:
    """What is wrong with a cache file, after all its images were compared with their CRC-32s; "" if nothing is."""
    with file.open("rb") as stream:
        try:
            values = json.loads(stream.read(_PAGE))
            size, count, key = int(values["size"]), int(values["images"]), str(values["key"])
            if min(size, count) < 0:
                raise ValueError
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            return f"has a damaged header ({type(error).__name__})"
        split = file.name.rpartition(f"-{size}-")[0]
        layout = CacheLayout(split=split, size=size, num_images=count, key=key)
        if layout.name != file.name:
            return f"holds the cache {layout.name!r}"
        # Nothing larger than the file is read into memory, whatever its header says.
        if (end := os.fstat(stream.fileno()).st_size) < layout.first_image:
            return f"breaks off after {end:,} bytes"
        for index, crc32 in enumerate(read_entries(stream.fileno(), layout).tolist()):
            pixels = read_range(stream.fileno(), layout.end(index), layout.image_bytes) if crc32 >= 0 else b""
            if crc32 >= 0 and zlib.crc32(pixels) != crc32:
                state = "breaks off" if len(pixels) < layout.image_bytes else "is damaged"
                return f"{state} at image {index}; igvg prepare --cache {size} mends it, or remove it"
    return ""


def _list_versions() -> dict[str, str | None]:
    """The versions of what decides an image's pixels; torch is not loaded for its own."""
    from PIL import features

    flags: list[str] = []
    # Torch's kernels for processors with AVX2 fuse products and sums.
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as stream:
        flags = stream.read(_PAGE).split()
    fused = "avx2" in flags and os.environ.get("ATEN_CPU_CAPABILITY") != "default"
    libraries = {name: features.version(name) for name in ("jpg", "libjpeg_turbo", "webp", "zlib")}
    libraries["processor"] = f"{platform.machine()} {fused}"
    return libraries | {name: metadata.version(name) for name in ("pillow", "torch", "numpy")}
