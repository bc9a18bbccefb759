"""The saved state of a training: written, checked, and restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from pipelines.model import IGVGModel
from pipelines.model.serialization import FORMER_NAME
from pipelines.prediction.predictor import predict_batches
from pipelines.runtime.distributed import require_equal
from pipelines.runtime.precision import ComputeDtype
from pipelines.training.divergence import DivergenceError, weights_are_finite
from pipelines.training.folders import STATE_FOLDER
from pipelines.training.optimizer import lr_factor, set_learning_rates
from pipelines.training.setup import Training
from pipelines.training.sharded_state import TensorParts, join_parts, write_shards
from pipelines.training.sharding import agree, is_sharded
from pipelines.training.split_tensors import split_like
from pipelines.training.state_files import STATE_REMEDY, find_state, write_state
from shards.errors import CheckpointError, NonFiniteError, SettingsError
from shards.progress import log


def save_state(training: Training) -> None:
    """Save the state to resume from; all ranks call it.

    If all of them hold the same weights, only the main process writes; else each writes what it holds.

    Raises:
        DivergenceError: weights or outputs are not finite; the previous state stays.
        OSError: it cannot be written; names the file.
    """
    accelerator, sharded, folder = training.accelerator, is_sharded(training.model), training.out / STATE_FOLDER
    if not (accelerator.is_main_process or sharded):
        return
    if not is_finite(training.model, training):
        raise DivergenceError("weights or outputs are not finite: training has diverged", on_all_ranks=sharded)
    state = describe_state(training)
    if sharded:
        state = write_shards(folder, state, accelerator)
    if accelerator.is_main_process:
        write_state(folder, state, keep=training.settings.keep_states)


def describe_state(training: Training) -> dict[str, Any]:
    """Everything that a training is resumed from."""
    return {
        "step": training.step,
        "scored": training.validated_step,
        "due": training.should_validate,
        "best": training.best,
        "best_step": training.best_step,
        "processes": training.accelerator.num_processes,
        "identity": training.identity,
        "skipped": [training.skipped_steps, training.skipped_in_a_row],
        "overflowed": training.overflowed_steps,
        "arithmetics": list(training.compute_dtypes),
        "model": training.model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        **({"scaler": training.scaler.state_dict()} if training.scaler.is_enabled() else {}),
        **({"ema": training.ema.model.state_dict()} if training.ema else {}),
    }


def restore_state(training: Training) -> None:
    """Restore the state that was saved in the training's folder, if there is one.

    Raises:
        CheckpointError: it is damaged, or of another network or version.
        SettingsError: it is of a step after the last one.
        LaunchError: the ranks found different states.
    """
    saved = find_state(training.out / STATE_FOLDER)
    if saved:
        step, total = saved.values.get("step"), training.total_steps
        if type(step) is int and step > total:
            raise SettingsError(f"{saved.file} is of step {step:,}, and with these settings the training ends at step "
                                f"{total:,}; raise epochs or max_steps")  # fmt: skip
        if mismatch := find_mismatch(saved.values, training):
            raise CheckpointError(f"{saved.file} is no state of this training: {mismatch}; {STATE_REMEDY}")
        load_state(saved.values, training)
    require_equal(training.step, "the step of the saved state")
    # All ranks have read the state.
    if saved and training.accelerator.is_main_process:
        for file in saved.damaged:
            file.unlink()
            log(f"{file} is damaged and removed; the training continues from step {training.step:,}, saved before it")
        describe_processes(saved.values, training)


def load_state(state: Mapping[str, Any], training: Training) -> None:
    """Set the training to a state that fits it."""
    load_tensors(training.model, state["model"])
    # Rates and betas are those of the settings, which may have changed since.
    groups = [{name: value for name, value in group.items() if name != "params"}
              for group in training.optimizer.param_groups]  # fmt: skip
    training.optimizer.load_state_dict(split_optimizer_state(state["optimizer"], training.optimizer))
    for group, values in zip(training.optimizer.param_groups, groups, strict=True):
        group.update(values)
    if step := state["step"]:
        # Those of the last step: if only its validation is left, no other step sets them before they are saved again.
        factor = lr_factor(training.settings.optimizer, step - 1, training.steps_per_epoch, training.total_steps)
        set_learning_rates(training.optimizer, factor)
    if training.ema:
        load_tensors(training.ema.model, state["ema"])
    # A training that goes on in another precision begins with a scale of its own.
    if training.scaler.is_enabled() and "scaler" in state:
        training.scaler.load_state_dict(state["scaler"])
    training.step, training.best = state["step"], state["best"]
    training.validated_step = state.get("scored", training.step)
    training.validation_is_due = bool(state.get("due")) and training.validated_step != training.step
    training.best_step = state.get("best_step", 0)
    training.skipped_steps, training.skipped_in_a_row = state.get("skipped", (0, 0))
    training.overflowed_steps = state.get("overflowed", 0)
    before = tuple(state.get("arithmetics", ()))
    training.compute_dtypes = before if before[-1:] == training.compute_dtypes else before + training.compute_dtypes


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor | TensorParts]) -> None:
    """Set parameters and buffers, of which the network may hold slices."""
    held = model.state_dict()
    model.load_state_dict({name: split_like(join_parts(tensor), held[name]) for name, tensor in tensors.items()})


def split_optimizer_state(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A saved state of Adam, with moments that are split as the parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        index: {
            name: value if name == "step" else split_like(join_parts(value), parameters[index])
            for name, value in values.items()
        }
        for index, values in saved["state"].items()
    }
    return {**saved, "state": state}


def describe_processes(state: Mapping[str, Any], training: Training) -> None:
    """Log what is equal and what is not if the state was saved by another number of processes."""
    before, now = state.get("processes"), training.accelerator.num_processes
    if before is None or before == now:
        return
    settings, config = training.settings, training.model.config
    differences = []
    if settings.micro_batches > 1 and settings.sync_batchnorm:
        differences.append("batch norms see other parts of a batch (micro_batches is not 1)")
    elif not settings.frozen_batchnorm and not settings.sync_batchnorm:
        differences.append("batch norms see other parts of a batch (sync_batchnorm is off)")
    if config.dropout or config.drop_path:
        differences.append("dropout draws other numbers")
    log(
        f"the training continues from step {training.step:,} in {now} processes instead of {before}: the examples of "
        f"every step, their order and the schedule stay the same; {''.join(f'{each}, ' for each in differences)}"
        f"{'and ' if differences else ''}sums are rounded otherwise"
    )


def is_finite(model: IGVGModel, training: Training) -> bool:
    """Whether weights and their outputs for the last micro-batch are finite: finite weights may be too large.

    Every rank has to call it if the network is split, and all get the same result.
    """
    # Ranks that hold parts of a network compute its outputs together, or not at all.
    all_agree = agree if is_sharded(model) else bool
    return all_agree(bool(weights_are_finite(model))) and all_agree(outputs_are_finite(model, training))


def outputs_are_finite(model: IGVGModel, training: Training) -> bool:
    """Whether the outputs for the last micro-batch are finite; the network is left in evaluation mode."""
    batches = [] if training.last_micro_batch is None else [training.last_micro_batch]
    try:
        for _ in predict_batches(model, batches, training.compute_dtype, 1.0):
            pass
    except NonFiniteError:
        return False
    return True


def find_mismatch(state: Mapping[str, Any], training: Training) -> str:
    """How a state differs from what this training can restore, a clause; empty if it fits."""
    for name, default in (("step", None), ("scored", 0), ("best_step", 0), ("overflowed", 0)):
        step = state.get(name, default)
        if type(step) is not int or not 0 <= step <= training.total_steps:
            return f"{name} is {step!r}, not a whole number up to {training.total_steps}"
    if type(state.get("best")) not in (int, float):
        return f"best is {state.get('best')!r}, not a number"
    identity = state.get("identity")
    if identity and training.identity and identity != training.identity:
        return "a training of other inputs or settings saved it"
    dtypes = state.get("arithmetics", [])
    if not isinstance(dtypes, list) or not all(each in get_args(ComputeDtype) for each in dtypes):
        return f"arithmetics is {dtypes!r}, not a list of {', '.join(get_args(ComputeDtype))}"
    skipped = state.get("skipped", [0, 0])
    if not isinstance(skipped, list) or len(skipped) != 2 or not all(type(each) is int for each in skipped):
        return f"skipped is {skipped!r}, not two whole numbers"
    model = state.get("model")
    if isinstance(model, dict) and FORMER_NAME in model:
        return "an earlier igvg wrote it, whose tensors have other names"
    return (
        _compare_tensors("model", model, training.model.state_dict())
        or _check_optimizer(state.get("optimizer"), training)
        or _check_scaler(state.get("scaler"))
        or (_compare_tensors("ema", state.get("ema"), training.model.state_dict()) if training.ema else "")
    )


def _check_scaler(found: Any) -> str:
    """How the scale of a training in float16 differs from one; None: there is none."""
    numbers = {"scale": float, "growth_factor": float, "backoff_factor": float, "growth_interval": int,
               "_growth_tracker": int}  # fmt: skip
    if found is None or (isinstance(found, dict) and {name: type(value) for name, value in found.items()} == numbers):
        return ""
    return f"scaler is {found!r}, no scale of gradients"


def _compare_tensors(key: str, found: Any, expected: Mapping[str, Tensor]) -> str:
    if not isinstance(found, dict):
        return f"{key} is no dictionary of tensors"
    for name in (*expected, *found):
        if name not in found or name not in expected:
            return f"{key} {'lacks' if name in expected else 'has an unknown'} {name}"
        is_tensor = isinstance(found[name], Tensor | TensorParts)
        if not is_tensor or found[name].shape != expected[name].shape:
            shape = list(found[name].shape) if is_tensor else "no tensor"
            return f"{key}.{name} is {shape} instead of {list(expected[name].shape)}"
    return ""


def _check_optimizer(found: Any, training: Training) -> str:
    groups = training.optimizer.param_groups
    saved = found.get("param_groups") if isinstance(found, dict) else None
    if not isinstance(saved, list) or not isinstance(found.get("state"), dict):
        return "optimizer is no state of Adam"
    indices = iter(range(sum(len(group["params"]) for group in groups)))
    expected = [[next(indices) for _ in group["params"]] for group in groups]
    needed = {"params", "lr", "base_lr", "betas", "eps", "weight_decay", "amsgrad"}
    if not all(isinstance(group, dict) and needed <= group.keys() for group in saved) or expected != [
        group["params"] for group in saved
    ]:
        return "optimizer.param_groups has other parameters"
    parameters = [parameter for group in groups for parameter in group["params"]]
    moments = ["exp_avg", "exp_avg_sq", *["max_exp_avg_sq"][: training.settings.optimizer.amsgrad]]
    for index, values in found["state"].items():
        if index not in range(len(parameters)):
            return f"optimizer has an unknown parameter {index!r}"
        tensors = {"step": torch.zeros(())} | dict.fromkeys(moments, parameters[index])
        if mismatch := _compare_tensors(f"optimizer.state.{index}", values, tensors):
            return mismatch
    return ""
