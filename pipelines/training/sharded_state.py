"""The state of a network that is split over the ranks: each of them writes what it holds of the tensors.

`state.pt` names a folder beside it, which holds a file for each rank that wrote it. Any number of ranks can read it: a
whole tensor is what the ranks held of it, one after the other along the first dimension.

NOTE: `torch.distributed.checkpoint` is not used: it unpickles the index of its folders without restriction, and a state
is data. Its files have no checksums either.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.distributed.tensor import DTensor

from pipelines.model.convert.torch_file import check_tensor, load_values
from pipelines.training.archive import require_intact, save_values
from shards.errors import CheckpointError
from shards.files import replace_file

SHARDS = "sharded"
"""Key of a state that names the folder and the number of its files."""
_PREFIX = "sharded-"
_Path = tuple[str | int, ...]


@dataclass(frozen=True)
class TensorParts:
    """A tensor as the ranks wrote it, along its first dimension; it is read when it is joined."""

    parts: tuple[Tensor, ...]

    @property
    def shape(self) -> torch.Size:
        """Shape of the whole tensor."""
        return torch.Size([sum(len(part) for part in self.parts), *self.parts[0].shape[1:]])

    def join(self) -> Tensor:
        """The whole tensor, in memory of its own."""
        return torch.cat(self.parts)


def join_parts(tensor: Tensor | TensorParts) -> Tensor:
    """The whole of a tensor of a state."""
    return tensor.join() if isinstance(tensor, TensorParts) else tensor


def write_shards(folder: Path, state: Mapping[str, Any], accelerator: Accelerator) -> dict[str, Any]:
    """Write the split tensors of a state; every rank has to call it.

    Returns:
        The state without them, to be written when all ranks are here: it names the folder.

    Raises:
        OSError: a file cannot be written; names it.
    """
    rest, shards = _take_shards(state)
    (name,) = broadcast_object_list([_choose_name(folder)])
    file = _name_file(folder / name, accelerator.process_index, accelerator.num_processes)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(file) as temporary:
        save_values(shards, temporary)
    accelerator.wait_for_everyone()
    return rest | {SHARDS: [name, accelerator.num_processes]}


def read_shards(folder: Path, state: dict[str, Any], remedy: str) -> dict[str, Any]:
    """A state with its split tensors as `TensorParts`; a state without such tensors as it is.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the others.
    """
    if SHARDS not in state:
        return state
    name, count = _read_reference(folder, state, remedy)
    files = [_name_file(folder / name, rank, count) for rank in range(count)]
    values = [_read_file(file, remedy) for file in files]
    joined = {key: value for key, value in state.items() if key != SHARDS}
    for path in values[0]:
        parts = tuple(shards.get(path) for shards in values)
        if not _fit_together(parts) or not _insert(joined, path, TensorParts(parts)):  # type: ignore[arg-type]
            raise CheckpointError(f"{files[0].parent} is damaged: {path!r} does not fit; {remedy}")
    return joined


def remove_unused_shards(folder: Path, states: list[Path]) -> None:
    """Remove the folders that none of the states names: those of older states, and what a killed process left."""
    used = {_read_name(file) for file in states}
    for unused in folder.glob(f"{_PREFIX}*"):
        if unused.name not in used:
            shutil.rmtree(unused)


def _read_name(state: Path) -> str | None:
    try:
        values = load_values(state, "", mmap=True)
        return _read_reference(state.parent, values, "")[0] if SHARDS in values else None
    except (CheckpointError, TypeError):
        return None


def _read_reference(folder: Path, state: Mapping[str, Any], remedy: str) -> tuple[str, int]:
    match state[SHARDS]:
        case [str(name), int(count)] if name.removeprefix(_PREFIX).isdecimal() and count > 0:
            return name, count
    raise CheckpointError(f"{folder / 'state.pt'} is no state of a training: {SHARDS} is {state[SHARDS]!r}; {remedy}")


def _read_file(file: Path, remedy: str) -> dict[_Path, Any]:
    if not file.is_file():
        raise CheckpointError(f"{file} is missing; {remedy}")
    require_intact(file, remedy)
    values = load_values(file, remedy, mmap=True)
    if not isinstance(values, dict) or not all(isinstance(path, tuple) and path for path in values):
        raise CheckpointError(f"{file} is no part of a training's state; {remedy}")
    for path, tensor in values.items():
        if isinstance(tensor, Tensor):
            check_tensor(".".join(map(str, path)), tensor, file)
    return values


def _fit_together(parts: tuple[Any, ...]) -> bool:
    if not all(isinstance(part, Tensor) and part.ndim for part in parts):
        return False
    return len({(part.dtype, part.shape[1:]) for part in parts}) == 1


def _take_shards(values: Mapping[Any, Any], path: _Path = ()) -> tuple[dict[Any, Any], dict[_Path, Tensor]]:
    """Nested dictionaries without their split tensors, and of these what this rank holds, by their keys."""
    rest: dict[Any, Any] = {}
    shards: dict[_Path, Tensor] = {}
    for key, value in values.items():
        if isinstance(value, DTensor):
            shards[*path, key] = value.to_local()
        elif isinstance(value, dict):
            rest[key], inner = _take_shards(value, (*path, key))
            shards |= inner
        else:
            rest[key] = value
    return rest, shards


def _insert(values: dict[Any, Any], path: _Path, parts: TensorParts) -> bool:
    """Set a value of nested dictionaries; False if they do not have its place."""
    inner: Any = values
    for key in path[:-1]:
        inner = inner.get(key)
        if not isinstance(inner, dict):
            return False
    inner[path[-1]] = parts
    return True


def _choose_name(folder: Path) -> str:
    taken = (found.name.removeprefix(_PREFIX) for found in folder.glob(f"{_PREFIX}*"))
    return f"{_PREFIX}{max((int(number) for number in taken if number.isdecimal()), default=0) + 1}"


def _name_file(folder: Path, rank: int, world_size: int) -> Path:
    return folder / f"rank-{rank}-of-{world_size}.pt"
