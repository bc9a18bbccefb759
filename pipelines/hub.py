"""Checkpoints on the Hugging Face hub: what names mean, and downloads into the hub's cache on this machine.

The library `huggingface_hub` does the work, and with it its environment variables hold: HF_HOME, HF_HUB_CACHE,
HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE. What is in the cache is used where the hub cannot be
reached. Several processes of a machine may download at a time: the library's file locks let one of them do it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shards.errors import CheckpointError
from shards.progress import begin_stage, report_progress

CHECKPOINT_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer*",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.spm",
)
"""What a checkpoint consists of, at the top of its repository: no weights that would have to be unpickled."""

URL_SCHEME = "hf://"
_PART = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[\w./-]+))?", re.ASCII)
# A path of pathlib has one slash less. The revision stands behind the repository, as in huggingface_hub, or at the end.
_URL = re.compile(
    rf"hf:/{{1,2}}(?P<repo>{_PART}/{_PART})(?:@(?P<early>[\w.-]+))?(?:/(?P<file>[^@]+))?(?:@(?P<late>[\w./-]+))?",
    re.ASCII,
)
# A missing file of one of these kinds is a mistyped path: nobody calls a repository so.
_FILE_SUFFIXES = frozenset({".pth", ".pt", ".bin", ".zip", ".safetensors", ".json", ".toml"})


@dataclass(frozen=True, kw_only=True)
class HubName:
    """A repository of models on the hub, or a file in it."""

    repo: str
    """USER/REPO"""
    file: str = ""
    """Path inside the repository; empty means the checkpoint at its top."""
    revision: str | None = None
    """A branch, a tag or a commit; None is the default branch."""

    def __str__(self) -> str:
        """The name as it is typed."""
        name = f"{URL_SCHEME}{self.repo}/{self.file}" if self.file else self.repo
        return f"{name}@{self.revision}" if self.revision else name

    def at(self, revision: str | None) -> HubName:
        """The same at a revision.

        Raises:
            CheckpointError: the name has another one.
        """
        if revision is not None and self.revision not in (None, revision):
            raise CheckpointError(f"{self} and revision {revision} contradict each other; leave out one of them")
        return replace(self, revision=revision or self.revision)


def parse_hub_name(name: str | Path) -> HubName | None:
    """The repository or file that a name means by its form, if it is one of the hub.

    Forms are USER/REPO, USER/REPO@REVISION, hf://USER/REPO, hf://USER/REPO/FILE and hf://USER/REPO/FILE@REVISION.
    Whether a path of that name exists is for the caller to check.
    """
    text = str(name)
    if found := _URL.fullmatch(text):
        file = found["file"] or ""
        if ".." in Path(file).parts or (found["early"] and found["late"]):
            return None
        return HubName(repo=found["repo"], file=file, revision=found["early"] or found["late"])
    if (found := _NAME.fullmatch(text)) and Path(text).suffix not in _FILE_SUFFIXES:
        return HubName(repo=found["repo"], revision=found["revision"])
    return None


def download(name: HubName) -> Path:
    """The folder or file of a name in the cache; what is missing there is downloaded.

    Raises:
        CheckpointError: as `download_checkpoint` and `download_file` raise.
    """
    return download_file(name) if name.file else download_checkpoint(name)


def download_checkpoint(name: str | HubName, revision: str | None = None) -> Path:
    """The folder of the cache that holds a checkpoint; only the files that a checkpoint needs are downloaded.

    Args:
        name: USER/REPO or USER/REPO@REVISION.
        revision: a branch, a tag or a commit; None is what the name says, else the default branch.

    Returns:
        A folder named after the commit, whose content never changes.

    Raises:
        CheckpointError: there is no such repository or revision, this machine has no access, the hub cannot be reached
            and the cache does not hold it, or it is no checkpoint.
    """
    parsed = _require_hub_name(name).at(revision)
    folder = _download(parsed, CHECKPOINT_FILES)
    if not (folder / "config.json").is_file() or not any(folder.glob("model*.safetensors")):
        raise CheckpointError(
            f"{parsed} on the hub is no checkpoint: it needs config.json and model.safetensors; a published .pth in it "
            f"is read by igvg import {URL_SCHEME}{parsed.repo}/FILE.pth"
        )
    return folder


def download_file(name: str | HubName, revision: str | None = None) -> Path:
    """The path in the cache of one file on the hub, with the tokenizer (`beit3.spm`) beside it, if there is one.

    Args:
        name: hf://USER/REPO/FILE or hf://USER/REPO/FILE@REVISION.
        revision: a branch, a tag or a commit; None is what the name says, else the default branch.

    Raises:
        CheckpointError: there is no such repository, revision or file, this machine has no access, or the hub cannot be
            reached and the cache does not hold it.
    """
    parsed = _require_hub_name(name).at(revision)
    if not parsed.file:
        raise CheckpointError(f"{parsed} names no file; give {URL_SCHEME}{parsed.repo}/FILE")
    # The pieces are those that igvg reads beside a published file.
    pieces = str(Path(parsed.file).with_name("beit3.spm"))
    path = _download(parsed, (parsed.file, pieces)) / parsed.file
    if not path.is_file():
        raise CheckpointError(f"{parsed.repo} on the hub has no file {parsed.file}; check its list of files there")
    return path


def find_commit(path: Path) -> str | None:
    """USER/REPO@COMMIT of a path inside the hub's cache; None for other paths."""
    parts = path.absolute().parts
    for position in range(len(parts) - 2):
        repo, snapshots, commit = parts[position : position + 3]
        if repo.startswith("models--") and snapshots == "snapshots":
            return f"{repo.removeprefix('models--').replace('--', '/')}@{commit}"
    return None


def _require_hub_name(name: str | HubName) -> HubName:
    parsed = name if isinstance(name, HubName) else parse_hub_name(name)
    if parsed is None:
        raise CheckpointError(
            f"{name} is no name of the hub; give USER/REPO, USER/REPO@REVISION or hf://USER/REPO/FILE"
        )
    return parsed


def _download(name: HubName, patterns: Sequence[str]) -> Path:
    """The folder of the cache with the files of a repository that match a pattern."""
    library = load_library()
    begin_stage(f"downloading {name}")
    try:
        with quiet_library():
            return Path(
                library.snapshot_download(
                    name.repo,
                    revision=name.revision,
                    allow_patterns=list(patterns),
                    # `*` also matches slashes: only a file that was asked for may lie in a folder.
                    ignore_patterns=None if name.file else ["*/*"],
                    library_name="igvg",
                    library_version=metadata.version("igvg"),
                    tqdm_class=_make_progress_bar(),
                )
            )
    except Exception as error:
        raise explain_error(error, name) from error


def load_library() -> Any:
    """The library `huggingface_hub`, which sends no statistics about this machine unless the environment allows it."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub

    return huggingface_hub


@contextlib.contextmanager
def quiet_library() -> Iterator[None]:
    """Inside, the library logs errors alone: what failed is told in one line of ours."""
    from huggingface_hub.utils.logging import get_verbosity, set_verbosity

    level = get_verbosity()
    set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        set_verbosity(level)


def _make_progress_bar() -> type[Any]:
    """A class of progress bars for the library that report to `shards.progress` and print nothing."""
    from huggingface_hub.utils.tqdm import tqdm

    class ReportedBar(tqdm):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{**settings, "file": io.StringIO(), "disable": False})  # type: ignore[no-untyped-call]

        def display(self, *_: Any, **__: Any) -> None:
            if self.total and self.unit != "B":
                report_progress(int(self.n), int(self.total), "files")

    return ReportedBar


def explain_error(error: Exception, name: HubName) -> Exception:
    """What the user can do about an error of the library, in one line without its text, which may hold signed URLs.

    Errors of the disk are returned as they are.
    """
    from huggingface_hub import errors

    causes = [error, *_list_causes(error)]
    kinds = tuple(type(cause) for cause in causes)

    def is_a(*names: str) -> bool:
        wanted = tuple(kind for each in names if (kind := getattr(errors, each, None)) is not None)
        return any(issubclass(kind, wanted) for kind in kinds)

    status = next((code for cause in causes if (code := _find_status(cause)) is not None), None)
    hub = _name_hub()
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return error
    if is_a("GatedRepoError"):
        return CheckpointError(f"{name.repo} is gated: ask for access at {hub}/{name.repo}, then {_LOG_IN}")
    # The hub answers so to strangers, whether or not there is such a repository.
    if is_a("RepositoryNotFoundError") or status == 401:
        return CheckpointError(
            f"{name.repo} is neither a path here nor a model on {hub} that this machine may read; check the name, or "
            f"if it is private, {_LOG_IN}"
        )
    if is_a("RevisionNotFoundError"):
        return CheckpointError(f"{name.repo} on {hub} has no revision {name.revision}; check its branches and tags")
    if is_a("HFValidationError"):
        return CheckpointError(f"{name.repo} is no name of the hub; give USER/REPO")
    if status == 403:
        return CheckpointError(f"{hub} refuses this machine access to {name.repo}; {_LOG_IN}")
    if is_a("OfflineModeIsEnabled"):
        return CheckpointError(
            f"{name} is neither a path here nor complete in the hub's cache, and HF_HUB_OFFLINE forbids a download; "
            "unset it, or download the model once on a machine with a network and copy HF_HOME"
        )
    if status is not None:
        return CheckpointError(f"{hub} failed to answer for {name} (HTTP {status}); try again later")
    return CheckpointError(
        f"{name} is neither a path here nor complete in the hub's cache, and {hub} could not be read "
        f"({type(causes[-1]).__name__}); check the name and the network, and try again"
    )


_LOG_IN = "log in with hf auth login, or set HF_TOKEN"


def _list_causes(error: BaseException) -> list[BaseException]:
    """The errors behind an error, from the last one to the first."""
    causes = []
    while (cause := error.__cause__) is not None:
        causes.append(cause)
        error = cause
    return causes


def _find_status(error: BaseException) -> int | None:
    """The status of the answer that an error of HTTP carries."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _name_hub() -> str:
    """The hub's address without a user name and password."""
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"
