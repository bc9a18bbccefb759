"""Batch norms of a training: with the statistics of all ranks, or with those that they were given.

Both change the class of the modules alone: parameters, buffers and the names of a state dict stay.

Letters: B batch of one rank, C channels, H = W side, R ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batch of all ranks, each of which has a part of the same size.

    NOTE: `torch.nn.SyncBatchNorm` takes no tensors of a CPU, and waits on the host for a count that is known here.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Normalize (B, C, H, W); in training every rank has to call it."""
        if not self.training:
            return super().forward(features)
        var, mean = torch.var_mean(features.float(), dim=(0, 2, 3), correction=0)
        means, variances = _AllGather.apply(torch.stack((mean, var))).unbind(dim=1)  # type: ignore[no-untyped-call]
        mean = means.mean(dim=0)
        var = (variances + (means - mean).square()).mean(dim=0)
        self._update_statistics(mean.detach(), var.detach(), features.numel() // features.shape[1] * len(means))
        scale = self.weight * (var + self.eps).rsqrt()
        centered = features.float() - mean[:, None, None]
        normalized: Tensor = centered * scale[:, None, None] + self.bias[:, None, None]
        return normalized.to(features.dtype)

    def _update_statistics(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Running means (C,) and variances (C,); the batch's variance is that of `count` values of a population."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * (count / (count - 1)), self.momentum)


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that stays in evaluation mode: its statistics are used and kept; its weights are trained."""

    def train(self, mode: bool = True) -> FrozenBatchNorm2d:  # noqa: ARG002
        """Stay in evaluation mode."""
        super().train(False)
        return self


class _AllGather(torch.autograd.Function):
    """A tensor (…) of every rank to (R, …) on every rank; its gradient is summed over the ranks."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ARG004
        gathered = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(gathered, tensor.contiguous())
        return torch.stack(gathered)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total[torch.distributed.get_rank()]


def synchronize_batch_norms(model: nn.Module) -> None:
    """Let batch norms use the statistics of all ranks."""
    _change_batch_norms(model, GlobalBatchNorm2d)


def freeze_batch_norms(model: nn.Module) -> None:
    """Let batch norms use the statistics that they hold, as in evaluation."""
    _change_batch_norms(model, FrozenBatchNorm2d)
    model.train(model.training)


def _change_batch_norms(model: nn.Module, kind: type[nn.BatchNorm2d]) -> None:
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = kind
