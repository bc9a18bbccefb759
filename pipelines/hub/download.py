"""Downloads into the hub's cache."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.hub.errors import explain_download_error
from pipelines.hub.library import identify_igvg, load_library, quiet_library
from pipelines.hub.names import CHECKPOINT_FILES, URL_SCHEME, HubName, require_hub_name
from shards.errors import CheckpointError
from shards.progress import begin_stage, report_progress


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
    parsed = require_hub_name(name).at(revision)
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
    parsed = require_hub_name(name).at(revision)
    if not parsed.file:
        raise CheckpointError(f"{parsed} names no file; give {URL_SCHEME}{parsed.repo}/FILE")
    # The pieces are those that igvg reads beside a published file.
    pieces = str(Path(parsed.file).with_name("beit3.spm"))
    path = _download(parsed, (parsed.file, pieces)) / parsed.file
    if not path.is_file():
        raise CheckpointError(f"{parsed.repo} on the hub has no file {parsed.file}; check its list of files there")
    return path


def download_annotations(name: str, files: Sequence[Sequence[str]]) -> Path:
    """The folder of the cache that holds the annotation files of a data set on the hub.

    Args:
        name: USER/REPO or USER/REPO@REVISION, a repository of a data set.
        files: for each file the names that it may have, one of which lies at the top of the repository.

    Returns:
        A folder named after the commit, whose content never changes.

    Raises:
        CheckpointError: there is no such repository or revision, this machine has no access, the hub cannot be reached
            and the cache does not hold it, or a file is missing there.
    """
    parsed = replace(require_hub_name(name.removeprefix("datasets/")), dataset=True)
    if parsed.file:
        raise CheckpointError(f"{name} names a file; give USER/REPO, with {_list_names(files)} at its top")
    folder = _download(parsed, [each for names in files for each in names])
    for names in files:
        if not any((folder / each).is_file() for each in names):
            raise CheckpointError(
                f"{parsed} on the hub has no {' or '.join(names)} at its top; give a data set with "
                f"{_list_names(files)}, or download it and give its folder as --annotations"
            )
    return folder


def _list_names(files: Sequence[Sequence[str]]) -> str:
    return " and ".join(" or ".join(names) for names in files)


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
                    repo_type="dataset" if name.dataset else "model",
                    allow_patterns=list(patterns),
                    # `*` also matches slashes: only a file that was asked for may lie in a folder.
                    ignore_patterns=None if name.file else ["*/*"],
                    tqdm_class=_make_progress_bar(),
                    **identify_igvg(),
                )
            )
    except Exception as error:
        raise explain_download_error(error, name) from error


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
