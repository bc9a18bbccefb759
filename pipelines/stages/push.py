"""`igvg push`: a finished run in, a repository on the Hugging Face hub out, with a model card."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipelines.config.overrides import overlay_settings, to_mapping
from pipelines.config.presets import train_preset
from pipelines.hub.names import CHECKPOINT_FILES, HubName, parse_hub_name
from pipelines.hub.upload import read_license, upload
from pipelines.prediction.prediction_file import PREDICTIONS
from pipelines.report.model_card import CardContent, Score, write_model_card
from pipelines.stages.artifact import RECORD, UNFINISHED, Artifact, read_artifact
from pipelines.stages.inputs import digest_checkpoint
from shards.errors import ArtifactError, CheckpointError, DataError, SettingsError
from shards.files import digest_file, read_json
from shards.progress import log

CARD = "README.md"
LOG = "log.jsonl"
SCORES = "scores.json"
_STAGES = ("train", "import")


@dataclass(frozen=True, kw_only=True)
class PushSettings:
    """How a run is uploaded."""

    private: bool = False
    """Whether a new repository is private; one that is there keeps what it is."""
    revision: str | None = None
    """The branch, made if it is not there; None is the default one."""
    license: str = ""
    """The identifier of a license on the hub; empty keeps that of the card there, or leaves it to fill in."""
    with_log: bool = False
    """Whether log.jsonl, the course of the training, is uploaded, too."""


@dataclass(frozen=True, kw_only=True)
class PushReport:
    """What was uploaded, or would be."""

    place: str
    """The address of the commit; the folder that would be uploaded where none was made."""
    files: tuple[str, ...]
    scores: int
    """Splits with scores in the card."""
    license: str
    """The identifier of the license in the card; empty: it is to be filled in."""


def run(
    folder: Path, repo: str, settings: PushSettings, scores: Sequence[Path] = (), *, dry_run: bool = False
) -> PushReport:
    """Upload the checkpoint of a finished run with a model card, in one commit.

    Args:
        folder: what `igvg train` or `igvg import` made.
        repo: USER/REPO.
        settings: how.
        scores: folders that `igvg score --out` made, or their scores.json; empty takes those beside the run that were
            made from its predictions.
        dry_run: write what would be uploaded into a folder, and upload nothing.

    Raises:
        ArtifactError: the run is unfinished, damaged, or of another stage.
        CheckpointError: it lacks weights or a tokenizer, or the hub refuses the upload or cannot be reached.
        DataError: scores cannot be read.
        SettingsError: `repo` is no name of the hub.
    """
    name = parse_hub_name(repo)
    if name is None or name.file or name.revision:
        raise SettingsError(f"{repo} is no repository of the hub; give USER/REPO (and a branch with --revision)")
    artifact = _read_run(folder)
    files: dict[str, Path | bytes] = dict(_list_files(folder, with_log=settings.with_log))
    found = [_read_scores(path) for path in scores] or [_read_scores(path) for path in find_scores(folder)]
    target = HubName(repo=name.repo, revision=settings.revision)
    terms = {"license": settings.license} if settings.license else {} if dry_run else read_license(target, CARD)
    files[CARD] = write_model_card(_collect_content(name, artifact, terms, found)).encode()
    if dry_run:
        place = str(_write_folder(files))
    else:
        place = upload(target, files, private=settings.private, message=f"igvg push {folder.absolute().name}")
    return PushReport(place=place, files=tuple(sorted(files)), scores=len(found), license=terms.get("license", ""))


def find_scores(folder: Path) -> list[Path]:
    """The folders beside the run, and in these, that hold scores of the run's own predictions."""
    beside = [other for other in sorted(folder.absolute().parent.iterdir()) if (other / RECORD).is_file()]
    records = [(other, record) for other in beside for record in _read_record(other)]
    records += [
        (inner, record) for other in beside for inner in sorted(other.glob("*/")) for record in _read_record(inner)
    ]
    predicted = [(other, record) for other, record in records if record.stage == "predict"]
    checkpoint = digest_checkpoint(folder) if predicted else ""
    digests = {
        digest_file(other / PREDICTIONS)
        for other, record in predicted
        if record.inputs.get("checkpoint") == checkpoint and (other / PREDICTIONS).is_file()
    }
    return [
        other for other, record in records if record.stage == "score" and record.inputs.get("predictions") in digests
    ]


def _read_run(folder: Path) -> Artifact:
    """The record of a run that can be uploaded.

    Raises:
        ArtifactError: it is none.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is no folder; give a finished run of igvg train or igvg import")
    recorded = any((folder / name).exists() for name in (RECORD, UNFINISHED))
    if not recorded and (folder / "config.json").is_file():
        raise ArtifactError(
            f"{folder} holds a checkpoint, but no {RECORD}, of which the model card is made; give the folder that igvg "
            "train or igvg import made with all its files, or upload this one with hf upload"
        )
    artifact = read_artifact(folder)
    if artifact.stage not in _STAGES:
        raise ArtifactError(f"{folder} was made by igvg {artifact.stage}; give a run of igvg train or igvg import")
    return artifact


def _list_files(folder: Path, *, with_log: bool) -> dict[str, Path]:
    """The files of the checkpoint by name.

    Raises:
        CheckpointError: some are missing.
    """
    patterns = (*CHECKPOINT_FILES, *((LOG,) if with_log else ()))
    files = {
        file.name: file
        for file in sorted(folder.iterdir())
        if file.is_file() and any(fnmatchcase(file.name, pattern) for pattern in patterns)
    }
    for needed in ("config.json", "model.safetensors"):
        if needed not in files:
            raise CheckpointError(f"{folder} has no {needed}; make it again")
    if not any(name.startswith("tokenizer") or name.endswith((".spm", ".model")) for name in files):
        raise CheckpointError(f"{folder} has no tokenizer, and nobody could use it; put beit3.spm into it")
    return files


def _read_record(folder: Path) -> Iterator[Artifact]:
    """The record of a folder if it is a finished one."""
    if (folder / RECORD).is_file():
        try:
            yield read_artifact(folder)
        except ArtifactError as error:
            log(f"left out: {error}")


def _read_scores(path: Path) -> Score:
    """The scores of a folder that `igvg score --out` made, or of its scores.json.

    Raises:
        DataError: there are none.
    """
    file = path / SCORES if path.is_dir() else path
    remedy = "give a folder that igvg score --out made"
    values = read_json(file, "scores in JSON", remedy)
    try:
        metrics = {str(name): None if value is None else float(value) for name, value in values["metrics"].items()}
        return Score(
            dataset=str(values["dataset"]),
            split=str(values["split"]),
            metrics=metrics,
            intervals=values.get("intervals") or {},
            resolution=int(values.get("resolution", 0)),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError("holds no scores", file=file, remedy=remedy) from error


def _collect_content(
    name: HubName, artifact: Artifact, terms: Mapping[str, str], scores: Sequence[Score]
) -> CardContent:
    counts: dict[str, Any] = dict(artifact.counts)
    datasets = counts.pop("datasets", [])
    recipe = {}
    if artifact.stage == "train":
        recipe = to_mapping(overlay_settings(train_preset("base"), artifact.options, RECORD))
    return CardContent(
        repo=name.repo,
        origin=artifact.stage,
        license=terms,
        datasets=datasets,
        settings=recipe,
        counts=counts,
        versions=artifact.versions,
        scores=scores,
    )


def _write_folder(files: dict[str, Path | bytes]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="igvg-push-"))
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            shutil.copyfile(content, folder / name)
    return folder
