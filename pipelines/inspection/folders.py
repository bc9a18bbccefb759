"""What a folder without a record holds, judged by the names of its files and the first bytes of its index."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pipelines.prediction.raw_store import INDEX as RAW_INDEX
from shards.index import INDEX as SPLIT_INDEX

FolderKind = Literal["shards", "split", "raw outputs", "checkpoint", "training state"]
STATE_FILE = "state.pt"
_HEAD = 4096


def find_kind(folder: Path) -> FolderKind | None:
    """The kind of a folder; None: of none that igvg knows."""
    if is_raw(folder):
        return "raw outputs"
    if is_split(folder):
        return "split"
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return "checkpoint"
    if (folder / STATE_FILE).is_file():
        return "training state"
    if any(is_split(child) for child in folder.iterdir() if child.is_dir()):
        return "shards"
    return None


def is_split(folder: Path) -> bool:
    """Whether it is a split of prepared shards."""
    return b'"shards"' in _read_head(folder / SPLIT_INDEX) or any(folder.glob("*.tar"))


def is_raw(folder: Path) -> bool:
    """Whether it is a folder of raw outputs."""
    return b'"mask_floor"' in _read_head(folder / RAW_INDEX) or any(folder.glob("chunk-*.npz"))


def _read_head(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_HEAD)
    except OSError:
        return b""
