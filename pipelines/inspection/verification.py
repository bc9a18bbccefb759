"""`igvg verify`: every artifact below a folder, and folders of known kinds without a record, checked for damage."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from pipelines.inspection.artifact_checks import check_artifact, find_orphans, is_artifact, list_files
from pipelines.inspection.content_checks import check_content
from pipelines.inspection.findings import Inventory, Verification
from pipelines.inspection.folders import FolderKind, find_kind
from pipelines.inspection.prediction_checks import check_raw
from pipelines.inspection.shard_checks import check_split, check_splits, is_written_by_igvg
from pipelines.stages.artifact import RECORD, SHARD_SUFFIX
from pipelines.stages.folder_lock import is_lock
from shards.errors import ArtifactError, CheckpointError, join_first
from shards.progress import begin_stage

# The name of a folder that igvg run or igvg demo gives to an artifact: STAGE-NAME-KEY.
_KEYED_NAME = re.compile(r"(shapes|prepare|train|predict|score|untrained|baseline|found|report)-.*[0-9a-f]{8}")
_SHOWN = 3


def verify(folder: Path, *, full: bool = False) -> Verification:
    """Check everything that igvg made in a folder and its subfolders.

    Args:
        folder: an artifact, a folder of artifacts, or shards, raw outputs, a checkpoint or a training state alone.
        full: also compare SHA-256 and read every record, mask, prediction, raw output, tensor and image.

    Raises:
        ArtifactError: there is no such folder, or nothing in it that igvg knows.
    """
    if not folder.is_dir():
        state = "is a file, not a folder" if folder.exists() else "no such folder"
        raise ArtifactError(f"{folder}: {state}; give a folder that igvg made, or one that holds such folders")
    begin_stage("verifying")
    inventory = Inventory(home=folder, full=full, total=_count_steps(folder) if full else 0)
    _visit(folder, inventory)
    if not inventory.units and not inventory.findings:
        raise ArtifactError(
            f"{folder}: expected {RECORD}, or shards, raw outputs, a checkpoint or a training state; found none of "
            "these in it and its subfolders; give a folder that igvg made"
        )
    if inventory.loose:
        loose = join_first(sorted(inventory.loose), _SHOWN)
        inventory.notes.append(f"{len(inventory.loose)} files belong to no artifact and are not verified: {loose}")
    return inventory.close()


def _count_steps(folder: Path) -> int:
    """The files below a folder, those that are read twice counted twice."""
    names = [name for _, _, files in os.walk(folder) for name in files]
    return len(names) + sum(name.endswith((SHARD_SUFFIX, ".npz")) for name in names)


def _visit(folder: Path, inventory: Inventory) -> None:
    """Check a folder, then all artifacts inside."""
    if is_artifact(folder):
        for inner in check_artifact(folder, inventory):
            _visit(inner, inventory)
        return
    orphans = list(find_orphans(folder))
    kind = find_kind(folder)
    if kind == "shards" and is_written_by_igvg(folder):
        orphans.append("shards of igvg prepare")
    if not kind and not orphans and _KEYED_NAME.fullmatch(folder.name) and any(folder.iterdir()):
        orphans.append("files")
    if orphans:
        inventory.units["unknown"] += 1
        inventory.add(folder / RECORD, f"is missing beside {', '.join(orphans)}")
    if kind:
        inventory.units[kind] += 1
        _check_kind(folder, kind, inventory)
    elif not orphans:
        _visit_inner(folder, inventory)


def _visit_inner(folder: Path, inventory: Inventory) -> None:
    children = sorted(folder.iterdir())
    for child in children:
        # Hidden folders are other programs', but for work of igvg that was interrupted.
        if child.is_dir() and not child.is_symlink() and (not child.name.startswith(".") or is_artifact(child)):
            _visit(child, inventory)
    inventory.loose += [inventory.name(child) for child in children if not child.is_dir() and not is_lock(child)]


def _check_kind(folder: Path, kind: FolderKind, inventory: Inventory) -> None:
    """Check a folder of a known kind without a record."""
    files, inner = list_files(folder)
    inventory.files += len(files)
    inventory.bytes += sum(file.stat().st_size for file in files if file.is_file())
    inventory.notes.append(f"{folder} has no {RECORD}: only what its files say themselves is verified")
    _KIND_CHECKS[kind](folder, inventory)
    for other in inner:
        _visit(other, inventory)


def _check_checkpoint(folder: Path, inventory: Inventory) -> None:
    for file in sorted(folder.iterdir()):
        if file.is_file():
            check_content(file, inventory)


def _check_state(folder: Path, inventory: Inventory) -> None:
    if not inventory.full:
        return
    from pipelines.model.convert.torch_file import load_values

    for file in sorted(folder.glob("*.pt")):
        with inventory.collect(file):
            try:
                load_values(file, "the same command begins the training again")
            except CheckpointError as error:
                raise CheckpointError(str(error).removeprefix(f"{file}: ")) from error


def _check_raw(folder: Path, inventory: Inventory) -> None:
    check_raw(folder, inventory)


_KIND_CHECKS: dict[FolderKind, Callable[[Path, Inventory], None]] = {
    "shards": check_splits,
    "split": lambda folder, inventory: check_split(folder.parent, folder.name, inventory, None),
    "raw outputs": _check_raw,
    "checkpoint": _check_checkpoint,
    "training state": _check_state,
}
