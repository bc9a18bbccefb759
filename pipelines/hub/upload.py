"""Uploads to the hub, in one commit."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from pipelines.hub.errors import explain_upload_error
from pipelines.hub.library import hide_bars, identify_igvg, load_library, quiet_library
from pipelines.hub.names import CHECKPOINT_FILES, HubName
from shards.progress import begin_stage

LICENSE_KEYS = ("license", "license_name", "license_link")
"""The keys of a card's metadata that say its license."""


def upload(name: HubName, files: Mapping[str, Path | bytes], *, private: bool, message: str) -> str:
    """Commit files to the top of a repository, which is made if it is not there; other files of a checkpoint there go.

    Args:
        name: the repository; its revision is a branch, which is made if it is not there.
        files: content by name.
        private: whether a new repository is private.
        message: what the commit is called.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: this machine may not write there, or the hub cannot be reached.
    """
    library = load_library()
    begin_stage(f"uploading to {name}")
    api = library.HfApi(**identify_igvg())
    try:
        with quiet_library(), hide_bars():
            api.create_repo(name.repo, private=private, exist_ok=True)
            if name.revision:
                api.create_branch(name.repo, branch=name.revision, exist_ok=True)
            stale = [
                file
                for file in api.list_repo_files(name.repo, revision=name.revision)
                if file not in files and any(fnmatchcase(file, pattern) for pattern in CHECKPOINT_FILES)
            ]
            operations = [
                *(
                    library.CommitOperationAdd(path_in_repo=file, path_or_fileobj=content)
                    for file, content in files.items()
                ),
                *(library.CommitOperationDelete(path_in_repo=file) for file in stale if "/" not in file),
            ]
            commit = api.create_commit(name.repo, operations, commit_message=message, revision=name.revision)
    except Exception as error:
        raise explain_upload_error(error, name) from error
    return str(commit.commit_url)


def read_license(name: HubName, card: str) -> dict[str, str]:
    """What the card of a repository says of its license, by key of its metadata; nothing where there is no card.

    Args:
        name: the repository, and the branch as its revision.
        card: the card's file name.

    Raises:
        CheckpointError: the hub cannot be reached.
    """
    from huggingface_hub import errors

    library = load_library()
    absent = (errors.EntryNotFoundError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError)
    try:
        with quiet_library(), hide_bars(), tempfile.TemporaryDirectory() as folder:
            path = library.hf_hub_download(name.repo, card, revision=name.revision, local_dir=folder, **identify_igvg())
            data = library.ModelCard.load(path, ignore_metadata_errors=True).data.to_dict()
    except absent:
        return {}
    except Exception as error:
        raise explain_upload_error(error, name) from error
    return {key: str(data[key]) for key in LICENSE_KEYS if data.get(key)}
