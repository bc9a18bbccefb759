"""An exponential moving average of the weights of a training."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pipelines.model import IGVGModel
from pipelines.training.split_tensors import local_tensor


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
    def update(self, model: nn.Module, step: int, skipped: Tensor) -> None:
        """Follow the network after a step, counted from 0; counters of batches are copied.

        A step with `skipped` 1, a scalar on the device, changes nothing.
        """
        weight = (1 - min(self.decay, (1 + step) / (10 + step))) * (1 - skipped)
        for average, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if value.is_floating_point():
                local_tensor(average).lerp_(local_tensor(value), weight.to(value.dtype))
            else:
                average.copy_(value)
