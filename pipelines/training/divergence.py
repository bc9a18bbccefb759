"""A training that diverges: noticed before anything is saved, and what there is to go on from."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipelines.prediction.predictor import predict_batches
from pipelines.pretrained import save_checkpoint
from pipelines.training.setup import Training
from pipelines.training.state import STATE_FOLDER, load_state
from shards.errors import NonFiniteError

LAST_GOOD_FOLDER = "last-good"
# How much lower the advised learning rates are.
_REDUCTION = 10


class DivergenceError(NonFiniteError):
    """Outputs, losses or weights are not finite: says which, and what to do.

    Args:
        what: the message.
        met_by_all: whether every process of the training raises it in the same place.
    """

    def __init__(self, what: str, *, met_by_all: bool = False) -> None:
        self.met_by_all = met_by_all
        super().__init__(what)


def require_finite(model: nn.Module, loss: Tensor, accelerator: Accelerator) -> None:
    """Stop all processes if the loss or a weight of any of them is not finite.

    Raises:
        DivergenceError: on every process.
    """
    failed = (~torch.stack([loss.isfinite().all().to(accelerator.device), check_weights(model)]).all()).float()
    if accelerator.reduce(failed, reduction="sum").item():
        raise DivergenceError("losses or weights are not finite: training has diverged", met_by_all=True)


def check_weights(model: nn.Module) -> Tensor:
    """Whether all weights and statistics are finite, a scalar on their device."""
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    return torch.stack([tensor.detach().isfinite().all() for tensor in tensors]).all()


def is_sound(training: Training) -> bool:
    """Whether the weights are finite, and so are the outputs about the last batch: finite weights may be too large."""
    if not check_weights(training.model):
        return False
    batches = [] if training.last_part is None else [training.last_part]
    try:
        for _ in predict_batches(training.model, batches, training.compute_dtype, 1.0):
            pass
    except NonFiniteError:
        return False
    return True


def advise(training: Training) -> str:
    """What to do after a divergence; writes the last saved weights, which were finite, as a checkpoint folder."""
    optimizer = training.settings.optimizer
    rates = (("encoder_lr", optimizer.encoder_lr), ("head_lr", optimizer.head_lr))
    changes = [f"--set optimizer.{name}={rate / _REDUCTION:.2g}" for name, rate in rates]
    if training.compute_dtype == "bf16":
        changes.append("--set precision=fp32")
    if (step := save_last_good(training)) is not None:
        folder = training.out / LAST_GOOD_FOLDER
        return (
            f"the weights of step {step} are in {folder}: train on from them with lower rates, into another folder: "
            f"--init {shlex.quote(str(folder))} {' '.join(changes)} --out OTHER"
        )
    return f"no sound state was saved before: begin again with lower rates: --force {' '.join(changes)}"


def save_last_good(training: Training) -> int | None:
    """Write the weights of the saved state as a checkpoint folder; the step they are of, or None if they are not sound.

    Every process that meets a divergence does so, since it may be the only one; all write the same bytes.
    """
    folder: Path = training.out / STATE_FOLDER
    state = load_state(folder)
    if state is None:
        return None
    training.model.load_state_dict(state["model"])
    if not is_sound(training):
        return None
    max_tokens = training.settings.text.max_tokens
    save_checkpoint(training.out / LAST_GOOD_FOLDER, training.model, training.tokenizer, max_tokens)
    return int(state["step"])
