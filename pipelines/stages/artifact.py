"""A stage and its artifact: a folder with `artifact.json`, written last, that records what it was made from.

The fingerprint hashes the stage, the content of its inputs and the settings that decide its bytes, never paths, times
or worker counts. A folder with the same fingerprint is finished work. A folder with another one is left alone, and the
error names the difference. One command at a time works in a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pipelines.config.overrides import describe_differences
from pipelines.stages.folder_lock import inner_lock, is_lock, lock_folder, refuse_locked
from shards.errors import ArtifactError, DataError, join_first
from shards.file_kinds import describe_content
from shards.files import TEMPORARY, digest_file, read_json, remove_drafts, remove_stale, write_json

if TYPE_CHECKING:
    from accelerate import Accelerator

RECORD = "artifact.json"
UNFINISHED = "unfinished.json"
SHARD_SUFFIX = ".tar"
# igvg run and igvg demo name their folders themselves and have no --force: remove the folder.
_MAKE_AGAIN = "remove its folder, or make it again with --force"
_REPLACE = "choose another --out, or replace it with --force"
_PACKAGES = ("igvg", "numpy", "pillow", "pycocotools", "torch", "transformers")
_KEY_LENGTH = 8

ReportT = TypeVar("ReportT")
OtherT = TypeVar("OtherT")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """The record of a finished stage.

    `inputs` holds content digests, `options` the settings that decide the bytes, `files` the byte size of every file,
    `digests` the SHA-256 of every file but shards, whose SHA-256 is in the index of their split. `checksum` is the
    SHA-256 over everything else. Earlier versions wrote neither of the two.
    """

    stage: str
    fingerprint: str
    inputs: dict[str, Any]
    options: dict[str, Any]
    counts: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    checksum: str = ""

    @cached_property
    def expected_checksum(self) -> str:
        """SHA-256 over the canonical JSON of all other fields."""
        values = {name: value for name, value in asdict(self).items() if name != "checksum"}
        return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class StageResult(Generic[ReportT]):
    """What a stage returns."""

    report: ReportT
    """What the stage measured; None where the artifact's counts hold everything."""
    artifact: Artifact | None = None
    """The record of the folder that it left; None where it left none."""
    cached: bool = False
    """Whether the artifact was already there."""
    folder: Path = Path()
    """The folder of the artifact."""

    @property
    def counts(self) -> dict[str, Any]:
        """The counts of the artifact."""
        assert self.artifact is not None
        return self.artifact.counts

    def with_report(self, report: OtherT) -> StageResult[OtherT]:
        """The same result with a report."""
        return StageResult(report=report, artifact=self.artifact, cached=self.cached, folder=self.folder)


@dataclass(frozen=True)
class KeyedFolder:
    """A folder of `parent` named STAGE-NAME-KEY: other inputs or settings have another key, and another folder."""

    parent: Path
    name: str


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of a stage: everything that decides the bytes of its artifact, and where the artifact goes."""

    name: str
    out: Path | KeyedFolder
    inputs: Mapping[str, Any]
    """Content digests."""
    options: Mapping[str, Any]
    """The settings that decide the bytes."""

    @cached_property
    def fingerprint(self) -> str:
        """As `compute_fingerprint`."""
        return compute_fingerprint(self.name, self.inputs, self.options)

    @cached_property
    def folder(self) -> Path:
        """The folder of the artifact."""
        if isinstance(self.out, Path):
            return self.out
        return self.out.parent / f"{self.name}-{self.out.name.replace('/', '-')}-{self.fingerprint[:_KEY_LENGTH]}"

    def find(self, *, force: bool = False) -> StageResult[None] | None:
        """The finished artifact, if the folder holds it; None if it can be made there.

        Raises:
            ArtifactError: the folder holds a finished artifact of other inputs or settings (`force` allows to replace
                it), a damaged one, or files that igvg did not make (never replaced).
        """
        folder = self.folder
        if folder.exists() and not folder.is_dir():
            raise ArtifactError(f"{folder} is a file; --out must be a folder")
        if not _holds_files(folder):
            return None
        if not (folder / RECORD).exists():
            if (folder / UNFINISHED).exists():
                _refuse_other_stage(folder, self.name)
                return None
            raise ArtifactError(f"{folder} holds files that igvg did not make; choose another --out")
        if force:
            return None
        found = read_artifact(folder, self.name)
        if found.fingerprint != self.fingerprint:
            what = f"{folder} holds a finished {self.name} of other inputs or settings"
            raise ArtifactError(f"{what}: {self._explain(found)}")
        return StageResult(report=None, artifact=found, cached=True, folder=folder)

    @contextlib.contextmanager
    def claim(
        self, *, force: bool = False, accelerator: Accelerator | None = None
    ) -> Iterator[StageResult[None] | None]:
        """Keep other commands out of the folder; yields what `find` finds in it then.

        Of processes that work together, those of `accelerator`, the main one keeps others out for all of them.

        Raises:
            ArtifactError: another command works in the folder, or with `force` in a subfolder; or as `find` raises.
        """
        is_main = accelerator is None or accelerator.is_main_process
        with lock_folder(self.folder) if is_main else contextlib.nullcontext():
            if accelerator:
                accelerator.wait_for_everyone()
            cached = self.find(force=force)
            if force and is_main:
                refuse_locked(self.folder)
            if accelerator:
                # Every process has checked the folder before the first one writes.
                accelerator.wait_for_everyone()
            yield cached

    def start(self, *, force: bool = False) -> bool:
        """Open the folder for work in place; True if it continues interrupted work of the same fingerprint.

        `force` removes what igvg left there before, finished or not. Other commands must be kept out: `claim`.

        Raises:
            ArtifactError: the folder holds interrupted work of other inputs or settings.
        """
        folder, marker = self.folder, self.folder / UNFINISHED
        begun: Artifact | None = None
        if marker.exists() and not (force and (folder / RECORD).exists()):
            with contextlib.suppress(ArtifactError):
                begun = read_record(marker)
            if begun is not None and begun.fingerprint == self.fingerprint:
                # What a killed process was writing.
                remove_stale(folder, deep=True)
                return True
            if not force:
                damaged = f"its record is damaged; {_REPLACE}"
                changes = damaged if begun is None else self._explain(begun)
                raise ArtifactError(f"{folder} holds unfinished work of other inputs or settings: {changes}")
        if force:
            self.clear()
        folder.mkdir(parents=True, exist_ok=True)
        remove_drafts(marker, locked=True)
        write_json(marker, asdict(self._record()))
        return False

    def finish(self, counts: Mapping[str, Any], *, scratch: Collection[str] = ()) -> StageResult[None]:
        """Write `artifact.json` over everything that the folder holds now, which finishes the artifact.

        Args:
            counts: what the record says about the result.
            scratch: folders in it that only unfinished work needs; they are removed.
        """
        files = {
            str(name): file.stat().st_size
            for file in sorted(self.folder.rglob("*"))
            # Temporary files and locks of a killed process are no part of the result.
            if file.is_file() and file.name not in (RECORD, UNFINISHED) and not file.match(TEMPORARY)
            if not is_lock(file) and not _is_inside_another(file, self.folder)
            if (name := file.relative_to(self.folder)).parts[0] not in scratch
        }
        digests = {name: digest_file(self.folder / name) for name in files if not name.endswith(SHARD_SUFFIX)}
        artifact = self._record(counts=dict(counts), versions=_list_versions(), files=files, digests=digests)
        artifact = replace(artifact, checksum=artifact.expected_checksum)
        write_json(self.folder / RECORD, asdict(artifact))
        (self.folder / UNFINISHED).unlink(missing_ok=True)
        # Last: a process that is killed before continues from them.
        for folder in scratch:
            shutil.rmtree(self.folder / folder, ignore_errors=True)
        return StageResult(report=None, artifact=artifact, folder=self.folder)

    def clear(self) -> None:
        """Remove everything from the folder.

        What says that igvg made the folder is removed last: after a kill `force` can remove the rest. Work that is half
        removed is not continued.
        """
        if not _holds_files(self.folder):
            return
        if not (self.folder / RECORD).exists():
            write_json(self.folder / UNFINISHED, asdict(replace(self._record(), fingerprint="")))
        last = [self.folder / name for name in (UNFINISHED, RECORD) if (self.folder / name).exists()]
        for path in list(self.folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path not in (*last, inner_lock(self.folder)):
                path.unlink()
        for path in last:
            path.unlink()

    def read(self) -> StageResult[None]:
        """The artifact that another process has finished."""
        return StageResult(report=None, artifact=read_artifact(self.folder, self.name), folder=self.folder)

    def _record(self, **results: Any) -> Artifact:
        inputs, options = dict(self.inputs), dict(self.options)
        return Artifact(stage=self.name, fingerprint=self.fingerprint, inputs=inputs, options=options, **results)

    def _explain(self, found: Artifact) -> str:
        """What differs between an artifact and this stage."""
        changes = describe_differences(found.options, json.loads(json.dumps(self.options)))
        changed_inputs = describe_differences(found.inputs, json.loads(json.dumps(self.inputs)))
        # The name of an input may hold spaces; its digests, on both sides of an arrow, do not.
        changes += [f"input {change.rsplit(' ', 3)[0]} differs" for change in changed_inputs]
        shown = join_first(changes, 6)
        return f"{shown or 'made by another version of igvg'}; {_REPLACE}"


def compute_fingerprint(name: str, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of a stage's name, inputs and options."""
    key = json.dumps([name, inputs, options], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(key.encode()).hexdigest()


def read_artifact(folder: Path, stage: str | None = None) -> Artifact:
    """The record of a finished artifact whose files are all there.

    Raises:
        ArtifactError: there is none, it is of another stage, or a file is missing or has another size.
    """
    file = folder / RECORD
    if not file.exists():
        hint = (
            "its work is unfinished: run its command again" if (folder / UNFINISHED).exists() else "run igvg to make it"
        )
        raise ArtifactError(f"{folder} holds no {RECORD}; {hint}")
    record = read_record(file)
    if stage is not None and record.stage != stage:
        raise ArtifactError(f"{folder} was made by igvg {record.stage}, not by igvg {stage}; give another folder")
    for name, size in record.files.items():
        file = folder / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            if (content := describe_content(file)) and content.kind in ("git-lfs", "git-annex"):
                raise ArtifactError(f"{file} is {content.words}; {content.remedy}")
            state = "is missing" if found is None else f"has {found} bytes instead of {size}"
            raise ArtifactError(f"{file} {state}: the artifact is damaged; {_MAKE_AGAIN}")
    return record


def read_record(file: Path) -> Artifact:
    """The record that a stage wrote, `artifact.json` or `unfinished.json`.

    Raises:
        ArtifactError: it cannot be read, or is none.
    """
    remedy = _MAKE_AGAIN
    try:
        values = read_json(file, "the record of a stage in JSON", remedy)
        record = Artifact(**values)
    except DataError as error:
        raise ArtifactError(str(error)) from error
    except TypeError as error:
        raise ArtifactError(f"{file} is no record of a stage ({error}); {remedy}") from error
    texts, groups = (
        ("stage", "fingerprint", "checksum"),
        ("inputs", "options", "counts", "versions", "files", "digests"),
    )
    for name, kind in {**dict.fromkeys(texts, str), **dict.fromkeys(groups, dict)}.items():
        if not isinstance(getattr(record, name), kind):
            raise ArtifactError(f"{file} is no record of a stage ({name} is no {kind.__name__}); {remedy}")
    return record


def _holds_files(folder: Path) -> bool:
    """Whether a folder is there and holds more than what a process left that was killed when it began to work."""
    begun = f".{UNFINISHED}.*.tmp"
    return folder.is_dir() and not all(is_lock(path) or path.match(begun) for path in folder.iterdir())


def _is_inside_another(file: Path, folder: Path) -> bool:
    """Whether a file below a folder is part of an artifact in a subfolder, which other commands may make again."""
    inner = file.relative_to(folder).parents[:-1]
    return any((folder / parent / name).exists() for parent in inner for name in (RECORD, UNFINISHED))


def _refuse_other_stage(folder: Path, stage: str) -> None:
    try:
        begun = read_record(folder / UNFINISHED)
    except ArtifactError:
        return
    if begun.stage != stage:
        raise ArtifactError(f"{folder} holds unfinished work of igvg {begun.stage}; choose another --out")


def _list_versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
