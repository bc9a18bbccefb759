"""Adam with a learning rate for the encoder and one for all other parameters, and the schedule (paper, section C)."""

from __future__ import annotations

import math

import torch
from torch import nn

from pipelines.config.settings import OptimizerSettings
from pipelines.runtime.precision import ComputeDtype


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Adam:
    """Adam over all parameters that require gradients: group 0 is the encoder, group 1 all others.

    `base_lr` of a group is its learning rate without the schedule's factor.
    """
    encoder: list[nn.Parameter] = []
    head: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (encoder if name.startswith("encoder.") else head).append(parameter)
    groups = [
        {"params": encoder, "lr": settings.encoder_lr, "base_lr": settings.encoder_lr},
        {"params": head, "lr": settings.head_lr, "base_lr": settings.head_lr},
    ]
    return torch.optim.Adam(groups, betas=settings.betas, eps=settings.eps, amsgrad=settings.amsgrad, fused=True)


def build_scaler(device: torch.device, compute_dtype: ComputeDtype) -> torch.amp.GradScaler:
    """What scales the loss of a training in float16, so that small gradients are not zero; off in other precisions.

    Largest gradients are of the order of 100: with torch's first scale of 65,536 the first steps would overflow.
    """
    enabled = compute_dtype == "fp16"
    return torch.amp.GradScaler(device.type, init_scale=2.0**10, growth_interval=1000, enabled=enabled)


def lr_factor(settings: OptimizerSettings, step: int, steps_per_epoch: float, total_steps: int) -> float:
    """The factor on both learning rates at a step.

    `step`: the published schedule, constant inside an epoch: `warmup_factor` while epoch ≤ `warmup_epochs`, then 1,
    times `decay_factor` for every epoch of `decay_epochs` reached (epochs counted from 1).
    `cosine`: linear warmup, then half a cosine down to 0 at `total_steps`.
    """
    progress = step / steps_per_epoch
    if settings.schedule == "step":
        epoch = math.floor(progress) + 1
        factor = settings.warmup_factor if epoch <= settings.warmup_epochs else 1.0
        return factor * settings.decay_factor ** sum(epoch >= decay for decay in settings.decay_epochs)
    warmup = min(settings.warmup_epochs * steps_per_epoch, total_steps / 2)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total_steps - warmup)))


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of every group to `factor` × `base_lr`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The learning rates of an optimizer of `build_optimizer`, of the last step that was taken."""
    encoder, head = (float(group["lr"]) for group in optimizer.param_groups)
    return {"encoder": encoder, "head": head}
