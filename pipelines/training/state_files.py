"""The files of saved states: written atomically, the last ones kept, damaged ones passed over.

`state.pt` is the last one, `state-1.pt` the one before it, and so on. Tensors of a split network are in folders beside
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.model.convert.torch_file import load_values
from pipelines.training.archive import require_intact, save_values
from pipelines.training.sharded_state import read_shards, remove_unused_shards
from shards.errors import CheckpointError
from shards.files import replace_file

STATE_FILE = "state.pt"
STATE_REMEDY = "delete it, and the same command begins the training again"


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """The last state that is not damaged."""

    file: Path
    values: dict[str, Any]
    """On the CPU; not checked."""
    damaged: tuple[Path, ...] = ()
    """Later ones, which are damaged."""


def write_state(folder: Path, state: dict[str, Any], *, keep: int = 1) -> None:
    """Write a state and keep `keep` states; older ones are replaced only when the new one is complete.

    At most `max(keep, 2)` states are on the disk while it is written.

    Raises:
        OSError: it cannot be written; names the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_states(folder, keep=max(1, keep - 1))
    with replace_file(folder / STATE_FILE) as temporary:
        save_values(state, temporary)
        if keep > 1 and (folder / STATE_FILE).exists():
            # A process that is killed from here on leaves state-1.pt as the last state.
            for index in reversed(_list_indices(folder)):
                _name_state(folder, index).replace(_name_state(folder, index + 1))
    _remove_states(folder, keep=keep)
    remove_unused_shards(folder, [_name_state(folder, index) for index in _list_indices(folder)])


def read_state(folder: Path) -> dict[str, Any] | None:
    """The values of the last state that is not damaged; None if there is none.

    Raises:
        CheckpointError: as of `find_state`.
    """
    found = find_state(folder)
    return found.values if found else None


def find_state(folder: Path) -> SavedState | None:
    """The last state that is not damaged; None if there is none.

    Raises:
        CheckpointError: all are damaged, or the last one is no file of torch; names the last one.
    """
    damaged: list[Path] = []
    first: CheckpointError | None = None
    for index in _list_indices(folder):
        file = _name_state(folder, index)
        try:
            return SavedState(file=file, values=_read_values(file), damaged=tuple(damaged))
        except CheckpointError as error:
            first = first or error
            damaged.append(file)
    if first:
        raise first
    return None


def _read_values(file: Path) -> dict[str, Any]:
    require_intact(file, STATE_REMEDY)
    values = load_values(file, STATE_REMEDY)
    if not isinstance(values, dict):
        raise CheckpointError(f"{file} is no state of a training; {STATE_REMEDY}")
    return read_shards(file.parent, values, STATE_REMEDY.replace("it", str(file), 1))


def _remove_states(folder: Path, *, keep: int) -> None:
    for index in _list_indices(folder)[keep:]:
        _name_state(folder, index).unlink()


def _name_state(folder: Path, index: int) -> Path:
    return folder / (f"state-{index}.pt" if index else STATE_FILE)


def _list_indices(folder: Path) -> list[int]:
    """The indices of the states in a folder, the last state first."""
    names = [file.stem.removeprefix("state-") for file in folder.glob("state-*.pt")]
    indices = sorted(int(name) for name in names if name.isdecimal() and int(name) > 0)
    return [0, *indices] if (folder / STATE_FILE).exists() else indices
