"""Checks that outputs and weights are finite."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipelines.training.split_tensors import local_tensor
from shards.errors import NonFiniteError


class DivergenceError(NonFiniteError):
    """Outputs, losses or weights are not finite.

    Args:
        message: says which.
        on_all_ranks: whether every rank raises it in the same place.
    """

    def __init__(self, message: str, *, on_all_ranks: bool = False) -> None:
        self.on_all_ranks = on_all_ranks
        super().__init__(message)


def require_finite(model: nn.Module, accelerator: Accelerator) -> None:
    """Stop all ranks if a weight of any of them is not finite.

    Raises:
        DivergenceError: on every rank.
    """
    if accelerator.reduce((~weights_are_finite(model)).float(), reduction="sum").item():
        raise DivergenceError("weights are not finite: training has diverged", on_all_ranks=True)


def weights_are_finite(model: nn.Module) -> Tensor:
    """Whether all parameters and buffers are finite, a scalar on their device; of a split network this rank's part."""
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    return torch.stack([local_tensor(tensor.detach()).isfinite().all() for tensor in tensors]).all()
