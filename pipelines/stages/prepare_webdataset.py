"""`igvg prepare webdataset`: shards that others wrote with our record schema in, the same shards with an index out."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.stages.artifact import KeyedFolder, Stage, StageResult
from pipelines.stages.inputs import digest_input
from pipelines.stages.whole_folder import continue_folder
from shards.errors import DataError, to_line
from shards.files import digest_file, replace_file
from shards.foreign_shards import check_members, find_tars, read_records
from shards.index import ShardContents, join_shards, write_index
from shards.indexing import index_shard
from shards.progress import begin_stage, report_progress

NAME = "webdataset"
"""The DATASET of `igvg prepare`."""
_FORMAT = 1
"""Version of what is checked and written, a part of the fingerprint."""
_SIZES = ("empty", "single", "multiple")


def run(folder: Path, out: Path | KeyedFolder, *, splits: Sequence[str] = (), force: bool = False) -> StageResult[None]:
    """Copy, check and index shards; every record and image is read once.

    Args:
        folder: holds the tars, as `find_tars` finds them.
        out: the prepared folder.
        splits: splits to take; none: all.
        force: replace what igvg left in `out`.

    Returns:
        The artifact, with the counts of `pipelines.stages.prepare`.

    Raises:
        ArtifactError: `out` holds something else.
        DataError: there is no such split, or a tar is damaged or holds something else than records and their images.
    """
    begin_stage("preparing shards")
    chosen = _choose_splits(folder, splits)
    # Before the digests: a hostile tar may be much longer than it is large.
    for files in chosen.values():
        for file in files:
            check_members(file)
    stage = _describe(chosen, out)
    if cached := stage.find(force=force):
        return cached
    with stage.claim(force=force) as cached:
        return cached or continue_folder(
            stage, lambda working: {"splits": _write_splits(working, chosen), "skipped": {}}
        )


def _choose_splits(folder: Path, splits: Sequence[str]) -> dict[str, list[Path]]:
    found = find_tars(folder)
    if missing := [split for split in splits if split not in found]:
        raise DataError(f"no split '{missing[0]}'", file=folder, remedy=f"it holds {', '.join(found)}")
    return {split: files for split, files in found.items() if not splits or split in splits}


def _describe(chosen: Mapping[str, Sequence[Path]], out: Path | KeyedFolder) -> Stage:
    inputs = {f"{split}/{file.name}": digest_input(file) for split, files in chosen.items() for file in files}
    return Stage(name="prepare", out=out, inputs=inputs, options={"dataset": NAME, "records": _FORMAT})


def _write_splits(working: Path, chosen: Mapping[str, Sequence[Path]]) -> dict[str, dict[str, int]]:
    """Copy and index all splits; returns their counts."""
    total, done = sum(len(files) for files in chosen.values()), 0
    counts, ids = {}, set[str]()
    for split, files in chosen.items():
        (working / split).mkdir(parents=True, exist_ok=True)
        parts, counted, keys = [], Counter[str](), dict[str, Path]()
        for file in files:
            report_progress(done, total, split)
            contents = _copy_shard(file, working / split / file.name)
            _refuse_repeated(file, contents, keys)
            _count_records(file, contents, ids, counted)
            parts.append(contents)
            done += 1
        write_index(working, join_shards(split, parts))
        counts[split] = {name: counted[name] for name in ("pictures", "instances", "expressions", *_SIZES)}
    report_progress(done, total)
    if not any(each["pictures"] for each in counts.values()):
        file = next(iter(chosen.values()))[0]
        raise DataError("no tar holds a record", file=file.parent, remedy="give the folder of the tars that hold some")
    return counts


def _copy_shard(source: Path, target: Path) -> ShardContents:
    """Copy a shard, unless an earlier run did, and index the copy.

    Raises:
        DataError: the source changed meanwhile, or is no shard.
    """
    digest = digest_input(source)
    if not target.is_file() or digest_file(target) != digest:
        with replace_file(target) as temporary:
            shutil.copyfile(source, temporary)
    try:
        contents = index_shard(target)
    except DataError as error:
        raise DataError(error.what, file=source, record=error.record, remedy=error.remedy) from error
    if contents.entry.sha256 != digest:
        raise DataError("changed while it was copied", file=source, remedy="run the same command again")
    return contents


def _refuse_repeated(file: Path, contents: ShardContents, keys: dict[str, Path]) -> None:
    """Add the keys of a shard to those of its split, and where each is.

    Raises:
        DataError: one is in an earlier shard, too.
    """
    for row in contents.rows:
        if (first := keys.setdefault(row.key, file)) != file:
            remedy = "give each record of a split a key of its own"
            raise DataError(f"is in {first.name}, too", file=file, record=f"key {to_line(row.key)}", remedy=remedy)


def _count_records(file: Path, contents: ShardContents, ids: set[str], counted: Counter[str]) -> None:
    """Check the records of a shard, and add what it holds to the counts and to the ids of all expressions.

    Raises:
        DataError: a record or an image cannot be used, or an id is given twice.
    """
    for key, record in read_records(file, contents):
        counted["pictures"] += 1
        counted["instances"] += len(record.instances)
        for expression in record.expressions:
            if expression.id in ids:
                raise DataError(f"expression id '{expression.id}' is given twice", file=file, record=f"key {key}")
            ids.add(expression.id)
            counted["expressions"] += 1
            counted[_SIZES[min(len(expression.instances), 2)]] += 1
