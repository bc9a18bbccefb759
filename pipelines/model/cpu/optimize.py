"""A network for float32 prediction on a CPU: batch norms are folded, 3 × 3 convolutions use minimal filtering."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn, Self

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipelines.model.cpu.minimal_filtering import MinimalFilteringConv2d
from pipelines.model.igvg import IGVGModel
from pipelines.model.pixel_decoder import UNetBlock


class CPUInferenceModel(IGVGModel):
    """A network that can only predict: its weights are derived from another's and would not follow a training."""

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode.

        Raises:
            RuntimeError: training mode was asked for.
        """
        if mode:
            raise RuntimeError("a network made by optimize_for_cpu can only predict; train the one that it was made of")
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Stay without gradients.

        Raises:
            RuntimeError: gradients were asked for.
        """
        if requires_grad:
            raise RuntimeError("a network made by optimize_for_cpu has no gradients; train the one that it was made of")
        return super().requires_grad_(False)

    def save_pretrained(self, folder: str | Path) -> NoReturn:
        """Refuse: the tensors are not those of a checkpoint.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            f"{folder}: a network made by optimize_for_cpu (also by load_pretrained and Grounder) predicts only, and "
            "its result is no checkpoint; save that of IGVGModel.from_pretrained or of AutoModel.from_pretrained"
        )


def optimize_for_cpu(model: IGVGModel, *, copy: bool = True) -> CPUInferenceModel:
    """An inference-only network for float32 on a CPU.

    Its results equal the model's in evaluation mode up to the rounding of float32. Under autocast it computes with
    PyTorch's own convolutions.

    Args:
        model: on a CPU.
        copy: False moves the weights instead of copying them: the model is left on the meta device, without weights.
    """
    state = {name: tensor.detach().clone() if copy else tensor for name, tensor in model.state_dict().items()}
    if not copy:
        model.to_empty(device="meta")
    optimized = CPUInferenceModel.from_state_dict(model.config, state, "the model")
    for block in list(optimized.modules()):
        if isinstance(block, UNetBlock):
            for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
                setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), getattr(block, norm)))
                setattr(block, norm, nn.Identity())
    for module in list(optimized.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d) and child.kernel_size == (3, 3):
                setattr(module, name, MinimalFilteringConv2d(child))
    return optimized.requires_grad_(False)
