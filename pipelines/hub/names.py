"""Names of repositories and files on the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from shards.errors import CheckpointError

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
    """A repository of models or of a data set on the hub, or a file in it."""

    repo: str
    """USER/REPO"""
    file: str = ""
    """Path inside the repository; empty means the checkpoint at its top."""
    revision: str | None = None
    """A branch, a tag or a commit; None is the default branch."""
    dataset: bool = False
    """Whether it is a repository of a data set; these have names of their own, beside those of models."""

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


def require_hub_name(name: str | HubName) -> HubName:
    """The name that a text means.

    Raises:
        CheckpointError: it is none.
    """
    parsed = name if isinstance(name, HubName) else parse_hub_name(name)
    if parsed is None:
        raise CheckpointError(
            f"{name} is no name of the hub; give USER/REPO, USER/REPO@REVISION or hf://USER/REPO/FILE"
        )
    return parsed


def find_commit(path: Path) -> str | None:
    """USER/REPO@COMMIT of a path inside the hub's cache; None for other paths."""
    parts = path.absolute().parts
    for position in range(len(parts) - 2):
        repo, snapshots, commit = parts[position : position + 3]
        kind, _, name = repo.partition("--")
        if kind in ("models", "datasets") and snapshots == "snapshots":
            return f"{name.replace('--', '/')}@{commit}"
    return None
