"""Records → tar shards and the index of a split: in parallel, with the same bytes for any number of workers.

A shard is a run of neighboring items, so its bytes depend on nothing else. Each is written under a temporary name,
indexed from what was written, and renamed; its contents lie beside it until the split's index.json holds them, so that
interrupted work continues after the last finished shard.

NOTE: `webdataset.TarWriter` makes the same bytes of JPEG images, but importing it loads torch (2 s and 185 MB in every
worker), and it sorts a record's members by extension, which moves KEY.json before KEY.png.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from shards.errors import DataError
from shards.exif import UPRIGHT, find_orientation
from shards.files import TEMPORARY, dump_json, replace_file, write_json
from shards.image_validation import read_valid_image
from shards.index import (
    Row,
    ShardContents,
    ShardEntry,
    ShardIndex,
    join_shards,
    list_splits,
    read_index,
    verify_shards,
    write_index,
)
from shards.indexing import index_shard
from shards.progress import report_progress
from shards.record import ImageRecord
from shards.workers import check_parent, map_ordered

RECORDS_PER_SHARD = 500
BYTES_PER_SHARD = 256 << 20
WORKERS_REMEDY = "run the same command again, it goes on; with --workers 0 it needs no other process"

Draft = TypeVar("Draft")
Item = tuple[Draft, Path]
"""What a record is built from, and its image file."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The index of the split as written, and the records that had to be left out, in order."""

    index: ShardIndex
    errors: tuple[DataError, ...]
    orientations: tuple[tuple[Path, int], ...] = ()
    """Image files with an EXIF orientation that is not 1, and the orientation."""


class _Written(NamedTuple):
    """One shard: what it holds, the records left out, and as `WriteResult.orientations`."""

    contents: ShardContents
    errors: list[DataError]
    orientations: list[tuple[Path, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job(Generic[Draft]):
    """One shard to write; `known` is what an earlier run left."""

    file: Path
    items: Sequence[Item[Draft]]
    build: Callable[[Draft], ImageRecord]
    known: ShardContents | None


def write_split(
    folder: Path,
    split: str,
    items: Sequence[Item[Draft]],
    build: Callable[[Draft], ImageRecord],
    *,
    workers: int = 1,
    records_per_shard: int = RECORDS_PER_SHARD,
) -> WriteResult:
    """Write FOLDER/SPLIT/SPLIT-000000.tar … and index.json, in shards of at most 256 MiB.

    An interrupted call leaves its finished shards; the next one keeps those whose drafts and images are unchanged.

    Args:
        folder: the prepared folder (in the making).
        split: name of the split and of the folder for it.
        items: the drafts of all records and their image files.
        build: makes a draft's record; with several workers it is pickled, so a function of a module.
        workers: processes; 1 works in this one.
        records_per_shard: the most that a shard holds.

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
    known = _find_finished_shards(folder, split)
    jobs = []
    for shard, part in enumerate(slice_items(items, records=records_per_shard, size=BYTES_PER_SHARD)):
        file = target / f"{split}-{shard:06d}.tar"
        jobs.append(_Job(file=file, items=part, build=build, known=known.get(file.name)))
    results = _write_shards(jobs, split, workers)
    index = join_shards(split, [result.contents for result in results])
    write_index(folder, index)
    for file in {*target.glob("*.tar"), *target.glob("*.tar.json")}.difference(job.file for job in jobs):
        file.unlink()
    errors = tuple(error for result in results for error in result.errors)
    return WriteResult(index, errors, tuple(found for result in results for found in result.orientations))


def slice_items(items: Sequence[Item[Draft]], *, records: int, size: int) -> list[Sequence[Item[Draft]]]:
    """Cut items into runs of at most `records` items or `size` bytes of images, each of one item at least."""
    bounds, filled = [0], 0
    for index, (_, image_file) in enumerate(items):
        added = image_file.stat().st_size if image_file.is_file() else 0
        if index > bounds[-1] and (index - bounds[-1] == records or filled + added > size):
            bounds.append(index)
            filled = 0
        filled += added
    ends = [*bounds[1:], len(items)]
    return [items[first:end] for first, end in zip(bounds, ends, strict=True) if end > first]


def _write_shards(jobs: Sequence[_Job[Draft]], split: str, workers: int) -> list[_Written]:
    results: list[_Written] = []
    done, total, processes = 0, sum(len(job.items) for job in jobs), min(workers, len(jobs))
    processes = processes if processes > 1 else 0
    report_progress(done, total, split)
    # Closed at once when interrupted, not when the traceback is forgotten. Not forked: the caller may have threads.
    with contextlib.closing(
        map_ordered(_write_shard, jobs, workers=processes, method="spawn", remedy=WORKERS_REMEDY)
    ) as finished:
        for job, result in zip(jobs, finished, strict=True):
            results.append(result)
            done += len(job.items)
            report_progress(done, total, split)
    return results


def _write_shard(job: _Job[Draft]) -> _Written:
    source, orientations = _digest_source(job.items)
    if job.known is not None and job.known.entry.source == source and _is_intact(job.file, job.known):
        return _Written(job.known, [], orientations)
    errors: list[DataError] = []
    with replace_file(job.file) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
            for draft, image_file in job.items:
                check_parent()
                try:
                    _add_record(archive, job.build(draft), image_file)
                except DataError as error:
                    errors.append(error)
        written = index_shard(temporary)
        # A shard with errors is never taken as finished: they would not be reported again.
        entry = replace(written.entry, name=job.file.name, source="" if errors else source)
        contents = ShardContents(entry, written.rows)
        _contents_file(job.file).unlink(missing_ok=True)
    write_json(_contents_file(job.file), {"entry": asdict(entry), "rows": contents.rows}, compact=True)
    return _Written(contents, errors, orientations)


def _add_record(archive: tarfile.TarFile, record: ImageRecord, image_file: Path) -> None:
    data = read_valid_image(image_file, record)
    document = dump_json(record.to_json(), separators=(",", ":"))
    for extension, content in ((image_file.suffix[1:].lower(), data), ("json", document)):
        # TarInfo's own defaults are fixed: time 0, user 0, group 0, mode 0644.
        member = tarfile.TarInfo(f"{record.image_id:012d}.{extension}")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def _contents_file(shard: Path) -> Path:
    """Where a finished shard's contents are kept until the split has its index."""
    return shard.with_name(f"{shard.name}.json")


def _find_finished_shards(folder: Path, split: str) -> dict[str, ShardContents]:
    """What earlier runs finished, by name; anything unreadable counts as not done."""
    known: dict[str, ShardContents] = {}
    with contextlib.suppress(DataError):
        if split in list_splits(folder):
            index = read_index(folder, split)
            rows = iter(index.rows())
            known = {entry.name: ShardContents(entry, list(islice(rows, entry.records))) for entry in index.shards}
    for file in (folder / split).glob("*.tar.json"):
        known.pop(file.name.removesuffix(".json"), None)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            document = json.loads(file.read_text(encoding="utf-8"))
            entry = ShardEntry(**document["entry"])
            known[entry.name] = ShardContents(entry, [Row(*row) for row in document["rows"]])
    return known


def _is_intact(file: Path, contents: ShardContents) -> bool:
    with contextlib.suppress(DataError):
        verify_shards(file.parent.parent, join_shards(file.parent.name, [contents]), full=True)
        return True
    return False


def _digest_source(items: Sequence[Item[Draft]]) -> tuple[str, list[tuple[Path, int]]]:
    """SHA-256 over everything a shard is made from: the drafts, and the bytes and extensions of the image files.

    Also the files with an EXIF orientation that is not 1, while their bytes are in memory.
    """
    digest, orientations = hashlib.sha256(), []
    for draft, image_file in items:
        digest.update(f"{draft!r}\0{image_file.suffix}\0".encode(errors="surrogatepass"))
        with contextlib.suppress(OSError):
            data = image_file.read_bytes()
            digest.update(hashlib.sha256(data).digest())
            if (orientation := find_orientation(data)) != UPRIGHT:
                orientations.append((image_file, orientation))
    return digest.hexdigest(), orientations
