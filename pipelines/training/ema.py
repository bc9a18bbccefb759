"""An exponential moving average of the weights of a training."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipelines.model import IGVGModel


class ExponentialMovingAverage:
    """A copy of a network in evaluation mode that follows its weights and its batch norms' statistics.

    Args:
        model: the network at the start.
        decay: weight of the average so far in each update. In the first updates it is (1 + step) / (10 + step), where
            that is less, so that the initial weights do not stay for long.
    """

    def __init__(self, model: IGVGModel, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Follow the network after a step, counted from 0; counters of batches are copied."""
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        averaged = [(average, value.detach()) for average, value in pairs if value.is_floating_point()]
        decay = min(self.decay, (1 + step) / (10 + step))
        update_all = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        update_all([average for average, _ in averaged], [value for _, value in averaged], step)
        for average, value in pairs:
            if not value.is_floating_point():
                average.copy_(value)
