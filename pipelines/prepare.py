"""`igvg prepare`: a published data set in, shards out, all at once or not at all.

The folder is made beside its place under a hidden name and moved there when it is whole; interrupted work is taken up
there by the same command.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipelines.artifact import Artifact, begin_work, find_finished, finish_work
from pipelines.overrides import select_material
from pipelines.settings import SettingsError
from shards.audit import Audit
from shards.errors import DataError
from shards.files import digest_file, replace_folder
from shards.published import DATASETS, ImageDraft, build_record, expect_files, list_files, read_dataset
from shards.published.coco import candidate_names, index_folders, locate_picture
from shards.writer import write_split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pipelines.settings import PrepareSettings
    from shards.published.coco import Picture

    Progress = Callable[[int, int, str], None]
    Item = tuple[ImageDraft, Path]

SKIPPED = "skipped.json"


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A file that is not there: the names it may have, and the folders in which it may be."""

    names: tuple[str, ...]
    folders: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `run` would find."""

    missing: tuple[Missing, ...]
    """Annotation files; where they are all there, image files."""
    audit: Audit
    """Records that cannot be used."""
    pictures: int
    expressions: int


def run(
    settings: PrepareSettings,
    annotations: Path,
    images: Sequence[Path],
    out: Path,
    *,
    progress: Progress,
    force: bool = False,
    workers: int | None = None,
) -> tuple[Artifact, bool]:
    """Make shards of a published data set.

    Args:
        settings: which data set and which part of it.
        annotations: folder of the published annotation files.
        images: folders of image files; where two hold the same name, the first one's counts.
        out: the prepared folder.
        progress: called with (pictures done, pictures, split).
        force: replace what igvg left in `out`.
        workers: processes; None takes one for each processor. The shards do not depend on it.

    Returns:
        The artifact, whose counts are `splits` and `skipped`, and whether it was already there.

    Raises:
        ArtifactError: `out` holds something else.
        DataError: a file is missing or unreadable, or records cannot be used and `settings.skip_invalid` is off.
        SettingsError: there is no such data set.
    """
    progress(0, 0, f"preparing {settings.dataset}")
    inputs, options = describe(settings, annotations, images)
    if finished := find_finished(out, "prepare", inputs, options, force=force):
        return finished, True
    audit = Audit()
    items = _locate_pictures(_read_drafts(settings, annotations, audit), index_folders(images), images, audit)
    _judge(audit, settings, annotations, left=len(items))
    # "." and links have no name beside which to work.
    out = out.resolve()
    working = out.with_name(f".{out.name}.working")
    # Work of other inputs lies there only if nobody will come back for it.
    begin_work(working, "prepare", inputs, options, force=True)
    try:
        with replace_folder(out, working):
            splits = _write_splits(working, items, workers, progress, audit)
            _judge(audit, settings, annotations, left=sum(counts["pictures"] for counts in splits.values()))
            (working / SKIPPED).unlink(missing_ok=True)
            if len(audit):
                audit.save(working / SKIPPED)
            counts = {"splits": splits, "skipped": audit.count_kinds()}
            artifact = finish_work(working, "prepare", inputs, options, counts)
    except DataError:
        shutil.rmtree(working)
        raise
    return artifact, False


def describe(
    settings: PrepareSettings, annotations: Path, images: Sequence[Path]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and options that make up the fingerprint of prepared shards.

    Annotation files count by their content, image files by their names and sizes: reading 80,000 pictures to find that
    nothing is to be done would take minutes.

    Raises:
        DataError: an annotation file or a folder of pictures is missing.
        SettingsError: there is no such data set.
    """
    _refuse_unknown(settings.dataset)
    inputs: dict[str, Any] = {file.name: digest_file(file) for file in list_files(settings.dataset, annotations)}
    digest = hashlib.sha256()
    for name, file in sorted(index_folders(images).items()):
        digest.update(f"{name}\0{file.stat().st_size}\0".encode(errors="surrogateescape"))
    inputs["pictures"] = digest.hexdigest()
    return inputs, select_material(settings)


def inspect(settings: PrepareSettings, annotations: Path, images: Sequence[Path]) -> Inspection:
    """Look for every file that `run` would read, and write nothing.

    Raises:
        DataError: an annotation file cannot be read, or has no such split.
        SettingsError: there is no such data set.
    """
    _refuse_unknown(settings.dataset)
    audit = Audit()
    expected = expect_files(settings.dataset, annotations)
    absent = [names for names in expected if not any((annotations / name).is_file() for name in names)]
    missing = [Missing(names=names, folders=(annotations,)) for names in absent]
    if missing:
        return Inspection(missing=tuple(missing), audit=audit, pictures=0, expressions=0)
    drafts = _read_drafts(settings, annotations, audit)
    files = index_folders([folder for folder in images if folder.is_dir()])
    missing += [
        Missing(names=tuple(candidate_names(picture)), folders=tuple(images))
        for picture in _list_missing(drafts, files)
    ]
    return Inspection(
        missing=tuple(missing),
        audit=audit,
        pictures=len({draft.picture.image_id for draft in drafts}),
        expressions=sum(len(draft.expressions) for draft in drafts),
    )


def _refuse_unknown(dataset: str) -> None:
    if dataset not in DATASETS:
        raise SettingsError(f"no data set {dataset!r}; there are {', '.join(DATASETS)}")


def _read_drafts(settings: PrepareSettings, annotations: Path, audit: Audit) -> list[ImageDraft]:
    drafts = read_dataset(settings.dataset, annotations, audit, settings.splits)
    if not settings.limit:
        return drafts
    return [draft for _, same in _by_split(drafts) for draft in islice(same, settings.limit)]


def _locate_pictures(
    drafts: Sequence[ImageDraft], files: Mapping[str, Path], folders: Sequence[Path], audit: Audit
) -> list[Item]:
    """Drafts with their image files; those without are left out and reported."""
    places = " or ".join(str(folder) for folder in folders)
    for picture in _list_missing(drafts, files):
        what = f"no picture {', '.join(candidate_names(picture))} in {places}"
        audit.add(DataError(what, record=f"image {picture.image_id}"), "missing picture")
    items = []
    for draft in drafts:
        if file := locate_picture(draft.picture, files):
            try:
                items.append((draft if draft.picture.width else _measure_picture(draft, file), file))
            except DataError as fault:
                audit.add(fault, "unusable picture or mask")
    return items


def _measure_picture(draft: ImageDraft, file: Path) -> ImageDraft:
    """Take the size that the annotations do not say from the image file."""
    try:
        with Image.open(file) as picture:
            width, height = picture.size
    except OSError as error:
        raise DataError(f"is no picture ({error})", file=file, record=f"image {draft.picture.image_id}") from error
    return replace(draft, picture=replace(draft.picture, width=width, height=height))


def _list_missing(drafts: Sequence[ImageDraft], files: Mapping[str, Path]) -> list[Picture]:
    pictures = {draft.picture.image_id: draft.picture for draft in drafts}
    return [picture for picture in pictures.values() if locate_picture(picture, files) is None]


def _judge(audit: Audit, settings: PrepareSettings, annotations: Path, *, left: int) -> None:
    if not settings.skip_invalid:
        audit.raise_if_any()
    if not left:
        kinds = ", ".join(f"{count} × {kind}" for kind, count in audit.count_kinds().items())
        raise DataError(f"no picture is left to prepare ({kinds or 'nothing was skipped'})", file=annotations)


def _write_splits(
    working: Path, items: Sequence[Item], workers: int | None, progress: Progress, audit: Audit
) -> dict[str, dict[str, int]]:
    """Write all splits; returns their counts."""
    splits: dict[str, list[Item]] = {}
    for draft, file in items:
        splits.setdefault(draft.split, []).append((draft, file))
    processes = os.cpu_count() or 1 if workers is None else workers
    counts, before = {}, 0
    for split, chosen in splits.items():

        def advance(done: int, before: int = before, split: str = split) -> None:
            progress(before + done, len(items), split)

        advance(0)
        result = write_split(working, split, chosen, build_record, workers=processes, on_progress=advance)
        for fault in result.faults:
            audit.add(fault, "unusable picture or mask")
        written = set(result.index.image_ids.tolist())
        counts[split] = _count([draft for draft, _ in chosen if draft.picture.image_id in written])
        before += len(chosen)
    return counts


def _count(drafts: Sequence[ImageDraft]) -> dict[str, int]:
    sizes = Counter(min(len(expression.instances), 2) for draft in drafts for expression in draft.expressions)
    return {
        "pictures": len(drafts),
        "instances": sum(len(draft.annotations) for draft in drafts),
        "expressions": sizes.total(),
        "single": sizes[1],
        "multiple": sizes[2],
        "empty": sizes[0],
    }


def _by_split(drafts: Sequence[ImageDraft]) -> Iterator[tuple[str, Iterator[ImageDraft]]]:
    return groupby(drafts, key=lambda draft: draft.split)
