"""The saved state that a training goes on from, checked before anything of it is used."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from pipelines.model.convert.torch_file import load_values
from pipelines.runtime.distributed import require_equal
from pipelines.training.setup import Training
from shards.errors import CheckpointError
from shards.files import replace_file

STATE_FOLDER = "state"


STATE_FILE = "state.pt"


STATE_REMEDY = "delete it, and the same command begins the training again"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the training state all at once; an older one is replaced only by a whole new one.

    Raises:
        OSError: it cannot be written; names the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with replace_file(folder / STATE_FILE) as temporary, temporary.open("wb") as stream:
        witness = _Witness(stream)
        try:
            torch.save(state, cast("BinaryIO", witness))
        except RuntimeError as error:
            # torch does not say why its archive could not be written.
            raise witness.error or error from error


class _Witness(io.RawIOBase):
    """A stream that remembers why the system refused to write."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self.stream = stream
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.stream.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.stream.flush()


def load_state(folder: Path) -> dict[str, Any] | None:
    """The last saved training state on the CPU, or None if there is none.

    Raises:
        CheckpointError: the file is damaged.
    """
    file = folder / STATE_FILE
    if not file.exists():
        return None
    state = load_values(file, STATE_REMEDY)
    if not isinstance(state, dict):
        raise CheckpointError(f"{file} is no state of a training; {STATE_REMEDY}")
    return state


def restore_state(training: Training) -> None:
    """Take up the state that was saved in the training's folder, if there is one.

    Raises:
        CheckpointError: it is damaged, or that of another network or version.
        LaunchError: the processes found different states.
    """
    if state := load_state(training.out / STATE_FOLDER):
        if mismatch := find_mismatch(state, training):
            file = training.out / STATE_FOLDER / STATE_FILE
            raise CheckpointError(f"{file} is no state of this training: {mismatch}; {STATE_REMEDY}")
        training.model.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
        training.step, training.best = state["step"], state["best"]
        training.scored = state.get("scored", training.step)
        before = tuple(state.get("arithmetics", ()))
        training.compute_dtypes = before if before[-1:] == training.compute_dtypes else before + training.compute_dtypes
    require_equal(training.step, "the step of the saved state")


def find_mismatch(state: Mapping[str, Any], training: Training) -> str:
    """What keeps a training from going on from a state, a clause; empty if nothing does."""
    last = training.total_steps
    for name, default in (("step", None), ("scored", 0)):
        number = state.get(name, default)
        if type(number) is not int or not 0 <= number <= last:
            return f"{name} is {number!r}, not a whole number up to {last}"
    if type(state.get("best")) not in (int, float):
        return f"best is {state.get('best')!r}, not a number"
    compute_dtypes = state.get("arithmetics", [])
    if not isinstance(compute_dtypes, list) or not all(one in ("fp32", "bf16") for one in compute_dtypes):
        return f"arithmetics is {compute_dtypes!r}, not a list of fp32 and bf16"
    return _compare_tensors("model", state.get("model"), training.model.state_dict()) or _check_optimizer(
        state.get("optimizer"), training
    )


def _compare_tensors(place: str, found: Any, wanted: Mapping[str, Tensor]) -> str:
    if not isinstance(found, dict):
        return f"{place} is no dictionary of tensors"
    for name in (*wanted, *found):
        if name not in found or name not in wanted:
            return f"{place} {'lacks' if name in wanted else 'has an unknown'} {name}"
        if not isinstance(found[name], Tensor) or found[name].shape != wanted[name].shape:
            shape = list(found[name].shape) if isinstance(found[name], Tensor) else "no tensor"
            return f"{place}.{name} is {shape} instead of {list(wanted[name].shape)}"
    return ""


def _check_optimizer(found: Any, training: Training) -> str:
    groups = training.optimizer.param_groups
    saved = found.get("param_groups") if isinstance(found, dict) else None
    if not isinstance(saved, list) or not isinstance(found.get("state"), dict):
        return "optimizer is no state of Adam"
    numbers = iter(range(sum(len(group["params"]) for group in groups)))
    expected = [[next(numbers) for _ in group["params"]] for group in groups]
    needed = {"params", "lr", "base_lr", "betas", "eps", "weight_decay", "amsgrad"}
    if not all(isinstance(group, dict) and needed <= group.keys() for group in saved) or expected != [
        group["params"] for group in saved
    ]:
        return "optimizer.param_groups has other parameters"
    parameters = [parameter for group in groups for parameter in group["params"]]
    moments = ["exp_avg", "exp_avg_sq", *["max_exp_avg_sq"][: training.settings.optimizer.amsgrad]]
    for number, values in found["state"].items():
        if number not in range(len(parameters)):
            return f"optimizer has an unknown parameter {number!r}"
        wanted = {"step": parameters[number].new_zeros(())} | dict.fromkeys(moments, parameters[number])
        if mismatch := _compare_tensors(f"optimizer.state.{number}", values, wanted):
            return mismatch
    return ""
