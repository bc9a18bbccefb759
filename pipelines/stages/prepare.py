"""`igvg prepare`: a published data set in, shards out, written atomically.

The folder is made under a hidden name beside `out` and renamed when it is complete; the same command continues
interrupted work there.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config.overrides import fingerprinted_settings, from_mapping
from pipelines.config.settings import CocoSettings, JsonLinesSettings, PrepareSettings
from pipelines.hub.download import download_annotations
from pipelines.hub.names import find_commit
from pipelines.stages.artifact import KeyedFolder, Stage, StageResult
from pipelines.stages.inputs import digest_input
from pipelines.stages.selection import (
    MISSING,
    TURNED,
    UNUSABLE_IMAGE,
    Item,
    Selection,
    find_names,
    list_own_files,
    select_items,
)
from pipelines.stages.whole_folder import continue_folder
from shards.annotations.coco import INSTANCES_FILE
from shards.annotations.coco_phrases import names_category
from shards.annotations.drafts import DATASETS, ImageDraft, build_record, expect_files, list_files
from shards.annotations.error_collector import ErrorCollector
from shards.annotations.image_files import index_folders
from shards.annotations.jsonl import list_mask_files
from shards.annotations.refer import SPLIT_NAME
from shards.datasets import OWN_LAYOUTS
from shards.errors import DataError, SettingsError
from shards.progress import begin_stage, part_of_progress
from shards.writer import write_split

SKIPPED = "skipped.json"
"""What was left out, and why."""
NOTES = "notes.json"
"""What was kept and should be checked."""
RECORDS = 2
"""Version of what records say, a part of the fingerprint; 2 marks crowd regions."""


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
    collector: ErrorCollector
    """Records that cannot be used, but for those without an image file."""
    images: int
    """Images that would be prepared."""
    expressions: int
    """Expressions that would be prepared."""
    unread: bool = False
    """Whether annotation files are missing, so that nothing was read."""


def run(
    settings: PrepareSettings,
    annotations: Path,
    images: Sequence[Path],
    out: Path | KeyedFolder,
    *,
    force: bool = False,
    workers: int | None = None,
) -> StageResult[None]:
    """Make shards of a published data set.

    Args:
        settings: which data set and which part of it.
        annotations: folder of the published annotation files.
        images: folders of image files; a name that several hold must be the same image in all of them.
        out: the prepared folder.
        force: replace what igvg left in `out`.
        workers: processes; None takes one for each processor. The shards do not depend on it.

    Returns:
        The artifact, whose counts are `splits`, `skipped` and, if there are any, `notes`; `hub` is USER/REPO@COMMIT of
        annotation files of the hub.

    Raises:
        ArtifactError: `out` holds something else.
        DataError: a file is missing or unreadable, or records cannot be used and `settings.skip_invalid` is off.
        SettingsError: there is no such data set.
    """
    begin_stage(f"preparing {settings.dataset}")
    stage = describe(settings, annotations, images, out)
    if cached := stage.find(force=force):
        return cached
    with stage.claim(force=force) as cached:
        if cached:
            return cached
        selection = select_items(settings, annotations, images)
        _check_usable(selection.collector, settings, annotations, num_images=len(selection.items))
        return continue_folder(stage, lambda folder: _write(folder, settings, selection, annotations, workers))


def _write(
    folder: Path, settings: PrepareSettings, selection: Selection, annotations: Path, workers: int | None
) -> dict[str, Any]:
    """Write all splits, and the lists of what was left out; returns the counts."""
    splits = _write_splits(folder, selection, workers)
    collector, notes = selection.collector, selection.notes
    _check_usable(collector, settings, annotations, num_images=sum(counts["pictures"] for counts in splits.values()))
    for name, listed in ((SKIPPED, collector), (NOTES, notes)):
        (folder / name).unlink(missing_ok=True)
        if len(listed):
            listed.save(folder / name)
    counts = {"splits": splits, "skipped": collector.count_kinds()}
    if commit := find_commit(annotations):
        counts["hub"] = commit
    if len(notes):
        counts["notes"] = notes.count_kinds()
    return counts


def choose_settings(values: Mapping[str, Any], source: str) -> PrepareSettings:
    """The settings of a data set, of the class that belongs to it.

    Raises:
        SettingsError: an unknown key, a missing key or an invalid value; begins with `source`.
    """
    kinds = {"jsonl": JsonLinesSettings, "coco": CocoSettings}
    return from_mapping(kinds.get(str(values.get("dataset")), PrepareSettings), values, source)


def download(dataset: str, name: str) -> Path:
    """The folder, in the hub's cache, of a published data set's annotation files.

    Args:
        dataset: which data set.
        name: USER/REPO or USER/REPO@REVISION, a repository of a data set on the hub.

    Raises:
        CheckpointError: as `download_annotations` raises.
        SettingsError: there is no such data set.
    """
    _refuse_unknown(PrepareSettings(dataset=dataset))
    if dataset in OWN_LAYOUTS:
        raise SettingsError(f"the hub holds published data sets, not {dataset}; give --annotations")
    return download_annotations(name, [DATASETS[dataset].files, (INSTANCES_FILE,)])


def describe(settings: PrepareSettings, annotations: Path, images: Sequence[Path], out: Path | KeyedFolder) -> Stage:
    """The stage of a preparation.

    Annotation files count by their content, image files by their names and sizes: reading 80,000 images to find that
    there is nothing to do would take minutes.

    Raises:
        DataError: an annotation file or a folder of images is missing.
        SettingsError: there is no such data set.
    """
    _refuse_unknown(settings)
    inputs = _digest_annotations(settings, annotations)
    digest = hashlib.sha256()
    for name, files in sorted(index_folders(images).items()):
        for file in files:
            digest.update(f"{name}\0{file.stat().st_size}\0".encode(errors="surrogateescape"))
    inputs["pictures"] = digest.hexdigest()
    options = {"records": RECORDS, **fingerprinted_settings(settings)}
    return Stage(name="prepare", out=out, inputs=inputs, options=options)


def _digest_annotations(settings: PrepareSettings, annotations: Path) -> dict[str, Any]:
    """The digests of the annotation files, and of the PNG masks that they name."""
    if settings.dataset not in OWN_LAYOUTS:
        return {file.name: digest_input(file) for file in list_files(settings.dataset, annotations)}
    files = list_own_files(settings, annotations)
    if settings.dataset == "coco":
        return {file.name: digest_input(file) for file in files}
    digest = hashlib.sha256()
    for file in list_mask_files(annotations):
        digest.update(f"{file.relative_to(annotations.parent)}\0{digest_input(file)}\0".encode())
    return {"annotations": digest_input(annotations), "masks": digest.hexdigest()}


def inspect(settings: PrepareSettings, annotations: Path, images: Sequence[Path]) -> Inspection:
    """Find every file that `run` would read, and write nothing.

    Raises:
        DataError: an annotation file cannot be read, or has no such split.
        SettingsError: there is no such data set.
    """
    _refuse_unknown(settings)
    own = settings.dataset in OWN_LAYOUTS
    if own:
        list_own_files(settings, annotations)
    expected = [] if own else expect_files(settings.dataset, annotations)
    absent = [names for names in expected if not any((annotations / name).is_file() for name in names)]
    missing = [Missing(names=names, folders=(annotations,)) for names in absent]
    if missing:
        return Inspection(missing=tuple(missing), collector=ErrorCollector(), images=0, expressions=0, unread=True)
    selection = select_items(settings, annotations, [folder for folder in images if folder.is_dir()])
    collector, list_names = ErrorCollector(), find_names(settings.dataset)
    for kind, error in selection.collector:
        if kind != MISSING:
            collector.add(error, kind)
    return Inspection(
        missing=tuple(Missing(names=tuple(list_names(image)), folders=tuple(images)) for image in selection.missing),
        collector=collector,
        images=len({draft.image.key for draft, _ in selection.items}),
        expressions=sum(len(draft.expressions) for draft, _ in selection.items),
    )


def _refuse_unknown(settings: PrepareSettings) -> None:
    dataset, known = settings.dataset, [*DATASETS, *OWN_LAYOUTS]
    if dataset not in known:
        raise SettingsError(f"no data set {dataset!r}; there are {', '.join(known)}")
    name = settings.name if isinstance(settings, JsonLinesSettings) else ""
    if name in DATASETS:
        raise SettingsError(f"name {name!r} is a published data set; choose another --name")
    if name and not SPLIT_NAME.fullmatch(name):
        raise SettingsError(f"name {name[:40]!r} is not made of letters, digits and _ + . -; choose another --name")
    if isinstance(settings, CocoSettings):
        unused = [text for text in settings.phrases if not names_category(text)]
        if unused or not settings.phrases:
            shown = f"{unused[0]!r} names no category" if unused else "there are none"
            raise SettingsError(f"phrases: {shown}; write {{category}} or {{categories}}, e.g. 'all {{categories}}'")


def _check_usable(collector: ErrorCollector, settings: PrepareSettings, annotations: Path, *, num_images: int) -> None:
    if not settings.skip_invalid:
        collector.raise_if_any()
    if not num_images:
        kinds = ", ".join(f"{count} × {kind}" for kind, count in collector.count_kinds().items())
        raise DataError(f"no image is left to prepare ({kinds or 'nothing was skipped'})", file=annotations)


def _write_splits(folder: Path, selection: Selection, workers: int | None) -> dict[str, dict[str, int]]:
    """Write all splits; returns their counts."""
    items = selection.items
    splits: dict[str, list[Item]] = {}
    for draft, file in items:
        splits.setdefault(draft.split, []).append((draft, file))
    processes = os.cpu_count() or 1 if workers is None else workers
    counts, before = {}, 0
    for split, chosen in splits.items():
        with part_of_progress(before, len(items)):
            result = write_split(folder, split, chosen, build_record, workers=processes)
        for error in result.errors:
            selection.collector.add(error, UNUSABLE_IMAGE)
        written = set(result.index.image_ids.tolist())
        image_ids = {file: draft.image.image_id for draft, file in chosen}
        for file, orientation in result.orientations:
            if image_ids[file] in written:
                what = f"EXIF orientation mark {orientation}: the pixels are taken as they are stored, not turned"
                selection.notes.add(DataError(what, file=file, record=f"image {image_ids[file]}"), TURNED)
        counts[split] = _count_records([draft for draft, _ in chosen if draft.image.image_id in written])
        before += len(chosen)
    return counts


def _count_records(drafts: Sequence[ImageDraft]) -> dict[str, int]:
    sizes = Counter(min(len(expression.instances), 2) for draft in drafts for expression in draft.expressions)
    return {
        "pictures": len(drafts),
        "instances": sum(len(draft.annotations) for draft in drafts),
        "expressions": sizes.total(),
        "single": sizes[1],
        "multiple": sizes[2],
        "empty": sizes[0],
    }
