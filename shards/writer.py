"""Records → tars: in parallel, the same bytes for any number of workers, and interrupted work is taken up again.

A shard is a run of neighboring items, so its bytes depend on nothing else. Each is written under a temporary name,
indexed from what was written, and renamed; what is known of it lies beside it until the split's index.json holds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from PIL import Image

from shards.errors import DataError
from shards.exif import UPRIGHT, read_orientation
from shards.file_kinds import explain_unreadable
from shards.files import TEMPORARY, dump_json, replace_file, write_json
from shards.index import (
    IMAGE_EXTENSIONS,
    Row,
    ShardContents,
    ShardEntry,
    ShardIndex,
    index_shard,
    join_shards,
    list_splits,
    read_index,
    verify_shards,
    write_index,
)
from shards.progress import report_progress
from shards.record import ImageRecord
from shards.workers import check_parent, map_ordered

RECORDS_PER_SHARD = 500
BYTES_PER_SHARD = 256 << 20
# One of them is in every file with an EXIF block or an XMP packet that knows of orientation.
_EXIF_MARKS = (b"Exif", b"exif", b"eXIf", b"tiff:Orientation")
_FIRST_QUARTER_TURN = 5
_IMAGES = ("JPEG", "PNG", "GIF", "TIFF", "WebP")
WORKERS_REMEDY = "run the same command again, it goes on; with --workers 0 it needs no other process"

Draft = TypeVar("Draft")
Item = tuple[Draft, Path]


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The index of the split as written, and the records that had to be left out, in order."""

    index: ShardIndex
    errors: tuple[DataError, ...]
    turned: tuple[tuple[Path, int], ...] = ()
    """Image files with an EXIF orientation that is not 1, and the orientation."""


class _Written(NamedTuple):
    """One shard: what it holds, the records left out, and as `WriteResult.turned`."""

    contents: ShardContents
    errors: list[DataError]
    turned: list[tuple[Path, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job(Generic[Draft]):
    """One shard to write; `known` is what an earlier run left."""

    file: Path
    items: Sequence[Item[Draft]]
    build: Callable[[Draft], ImageRecord]
    known: ShardContents | None


def write_split(
    folder: Path, split: str, items: Sequence[Item[Draft]], build: Callable[[Draft], ImageRecord], *, workers: int = 1
) -> WriteResult:
    """Write FOLDER/SPLIT/SPLIT-000000.tar … and index.json, in shards of at most 500 records or 256 MiB.

    See `write_slices`.
    """
    slices = slice_items(items, records=RECORDS_PER_SHARD, size=BYTES_PER_SHARD)
    return write_slices(folder, split, slices, build, workers=workers)


def slice_items(items: Sequence[Item[Draft]], *, records: int, size: int) -> list[Sequence[Item[Draft]]]:
    """Cut items into runs of at most `records` items or `size` bytes of images, each of one item at least."""
    bounds, filled = [0], 0
    for number, (_, image) in enumerate(items):
        added = image.stat().st_size if image.is_file() else 0
        if number > bounds[-1] and (number - bounds[-1] == records or filled + added > size):
            bounds.append(number)
            filled = 0
        filled += added
    ends = [*bounds[1:], len(items)]
    return [items[first:end] for first, end in zip(bounds, ends, strict=True) if end > first]


def write_slices(
    folder: Path,
    split: str,
    slices: Sequence[Sequence[Item[Draft]]],
    build: Callable[[Draft], ImageRecord],
    *,
    workers: int = 1,
) -> WriteResult:
    """Write one shard per slice and the split's index.

    An interrupted call leaves its finished shards; the next one keeps those whose drafts and images are unchanged.

    Args:
        folder: the prepared folder (in the making).
        split: name of the split and of the folder for it.
        slices: for each shard the drafts of its records and their image files.
        build: makes a draft's record; with several workers it is pickled, so a function of a module.
        workers: processes; 1 works in this one.

    Returns:
        The index, and the errors of the records that were left out: build raised DataError, or the image file is
        missing, damaged or of another size than its record says.

    Raises:
        DataError: a key occurs twice.
        WorkerError: a worker died.
    """
    target = folder / split
    target.mkdir(parents=True, exist_ok=True)
    for stale in target.glob(TEMPORARY):
        stale.unlink(missing_ok=True)
    known = _recall_shards(folder, split)
    names = [f"{split}-{number:06d}.tar" for number in range(len(slices))]
    jobs = [
        _Job(file=target / name, items=items, build=build, known=known.get(name))
        for name, items in zip(names, slices, strict=True)
    ]
    results: list[_Written] = []
    done, total, processes = 0, sum(map(len, slices)), min(workers, len(jobs))
    report_progress(done, total, split)
    # Closed at once when interrupted, and not when the traceback is forgotten. Not forked: the caller may have threads.
    with contextlib.closing(
        map_ordered(
            _write_shard, jobs, workers=processes if processes > 1 else 0, method="spawn", remedy=WORKERS_REMEDY
        )
    ) as finished:
        for job, result in zip(jobs, finished, strict=True):
            results.append(result)
            done += len(job.items)
            report_progress(done, total, split)
    index = join_shards(split, [result.contents for result in results])
    write_index(folder, index)
    for file in [*target.glob("*.tar"), *target.glob("*.tar.json")]:
        if file.name not in names:
            file.unlink()
    errors = tuple(error for result in results for error in result.errors)
    return WriteResult(index, errors, tuple(found for result in results for found in result.turned))


def _write_shard(job: _Job[Draft]) -> _Written:
    source, turned = _digest_source(job.items)
    if job.known is not None and job.known.entry.source == source and _is_intact(job):
        return _Written(job.known, [], turned)
    errors: list[DataError] = []
    with replace_file(job.file) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
            for draft, image in job.items:
                check_parent()
                try:
                    _add_record(archive, job.build(draft), image)
                except DataError as error:
                    errors.append(error)
        written = index_shard(temporary)
        # A shard with errors is never taken as finished: they would not be reported again.
        entry = replace(written.entry, name=job.file.name, source="" if errors else source)
        contents = ShardContents(entry, written.rows)
        _note(job.file).unlink(missing_ok=True)
    write_json(_note(job.file), {"entry": asdict(entry), "rows": contents.rows}, compact=True)
    return _Written(contents, errors, turned)


def _note(shard: Path) -> Path:
    """Where a finished shard's contents are kept until the split has its index."""
    return shard.with_name(f"{shard.name}.json")


def _recall_shards(folder: Path, split: str) -> dict[str, ShardContents]:
    """What earlier runs finished, by name; anything unreadable counts as not done."""
    known: dict[str, ShardContents] = {}
    with contextlib.suppress(DataError):
        if split in list_splits(folder):
            document = read_index(folder, split).to_json()
            rows = iter(document["rows"])
            for entry in document["shards"]:
                known[entry["name"]] = _read_contents(entry, [next(rows) for _ in range(entry["records"])])
    for note in (folder / split).glob("*.tar.json"):
        known.pop(note.name.removesuffix(".json"), None)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            document = json.loads(note.read_text(encoding="utf-8"))
            contents = _read_contents(document["entry"], document["rows"])
            known[contents.entry.name] = contents
    return known


def _read_contents(entry: dict[str, Any], rows: list[list[Any]]) -> ShardContents:
    return ShardContents(ShardEntry(**entry), [Row(*row) for row in rows])


def _is_intact(job: _Job[Draft]) -> bool:
    if job.known is None:
        return False
    with contextlib.suppress(DataError):
        split = job.file.parent
        verify_shards(split.parent, join_shards(split.name, [job.known]), full=True)
        return True
    return False


def _digest_source(items: Sequence[Item[Draft]]) -> tuple[str, list[tuple[Path, int]]]:
    """SHA-256 over everything a shard is made from: the drafts, and the bytes and extensions of the image files.

    Also the files that an EXIF mark asks to turn, and how: their bytes are at hand here.
    """
    digest, turned = hashlib.sha256(), []
    for draft, image in items:
        digest.update(f"{draft!r}\0{image.suffix}\0".encode(errors="surrogatepass"))
        with contextlib.suppress(OSError):
            data = image.read_bytes()
            digest.update(hashlib.sha256(data).digest())
            if (orientation := _find_orientation(data)) != UPRIGHT:
                turned.append((image, orientation))
    return digest.hexdigest(), turned


def _find_orientation(data: bytes) -> int:
    """The EXIF orientation of an image file; 1 where there is none. Most files are not opened for it."""
    if any(mark in data for mark in _EXIF_MARKS):
        with (
            contextlib.suppress(Exception),
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(data)) as image,
        ):
            return read_orientation(image).value
    return UPRIGHT


def _add_record(archive: tarfile.TarFile, record: ImageRecord, image: Path) -> None:
    data = _read_image(image, record)
    document = dump_json(record.to_json(), separators=(",", ":"))
    for extension, content in ((image.suffix[1:].lower(), data), ("json", document)):
        # TarInfo's own defaults are fixed: time 0, user 0, group 0, mode 0644.
        member = tarfile.TarInfo(f"{record.image_id:012d}.{extension}")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def _read_image(file: Path, record: ImageRecord) -> bytes:
    """The image file's bytes, after a look that they are a whole image of the record's size."""
    name = f"image {record.image_id}"
    if file.suffix[1:].lower() not in IMAGE_EXTENSIONS:
        raise DataError(f"'{file.suffix}' is no known extension of an image", file=file, record=name)
    try:
        data = file.read_bytes()
        # Pillow warns of damage that harms nothing here.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            size = image.size
            # An eighth of a JPEG's size costs a fraction of decoding it and still reads the file to its end.
            image.draft(None, (max(1, size[0] // 8), max(1, size[1] // 8)))
            image.load()
    except Exception as error:  # whatever a parser raises on a stranger's file
        unreadable = explain_unreadable(file, "an image", error, "", sound=_IMAGES, record=name)
        raise DataError(unreadable.what, file=file, record=name) from error
    if size != (record.width, record.height):
        what = f"the image has {size[0]} × {size[1]} pixels, the annotations say {record.width} × {record.height}"
        orientation = _find_orientation(data)
        if orientation >= _FIRST_QUARTER_TURN and size == (record.height, record.width):
            what += (
                f" because its EXIF orientation mark, {orientation}, is to turn it: turn the pixels and remove the "
                "mark, as igvg takes images as they are stored"
            )
        raise DataError(what, file=file, record=name)
    return data
