"""Linear maps that take the faster of torch's two matrix libraries on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.model.derived import Derived

_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_REORDER = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)


class Linear(nn.Linear):
    """`torch.nn.Linear`; without gradients, float32 tokens of a CPU go through oneDNN.

    Torch sends them to MKL, and either library lays out the weights anew in each call. In evaluation those that pack
    take the weights laid out once, which needs their memory a second time (CONTRIBUTING.md has the figures). The
    operators are those of torch's compiler; they have no gradient, and where torch does not ship them,
    `torch.nn.functional.linear` stays.
    """

    def __init__(self, width_in: int, width_out: int, *, packs: bool) -> None:
        super().__init__(width_in, width_out)
        self.packed: Derived[Tensor] | None = Derived(_pack) if packs and _REORDER is not None else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (…, in) to (…, out)."""
        if _ONEDNN is None or torch.is_grad_enabled() or not is_plain(tokens, self.weight) or not tokens.numel():
            return F.linear(tokens, self.weight, self.bias)
        packed = self.packed.get(self.weight) if self.packed is not None else None
        out: Tensor = _ONEDNN(tokens, self.weight if packed is None else packed, self.bias, "none", [], "")
        return out


def _pack(weight: Tensor) -> Tensor:
    """Weights (out, in) as oneDNN multiplies with them."""
    assert _REORDER is not None
    packed: Tensor = _REORDER(weight.detach(), None)
    return packed


def is_plain(tensor: Tensor, weight: Tensor) -> bool:
    """Whether torch computes with both as they are: float32 on a CPU, neither cast by autocast nor compiled."""
    return (
        tensor.is_cpu
        and weight.is_cpu
        and tensor.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
