"""Linear maps that take the faster of torch's two matrix libraries on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


class Linear(nn.Linear):
    """`torch.nn.Linear`; without gradients, float32 tokens of a CPU go through oneDNN.

    Torch sends them to MKL, with which the base network took a little longer in most runs of the benchmark on an AMD
    EPYC (CONTRIBUTING.md). The operator is what torch's own compiler uses for a linear map; it has no gradient, and
    where torch does not ship it, `torch.nn.functional.linear` stays.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (…, in) to (…, out)."""
        if _ONEDNN is None or torch.is_grad_enabled() or not is_plain(tokens, self.weight) or not tokens.numel():
            return F.linear(tokens, self.weight, self.bias)
        out: Tensor = _ONEDNN(tokens, self.weight, self.bias, "none", [], "")
        return out


def is_plain(tensor: Tensor, weight: Tensor) -> bool:
    """Whether torch computes with both as they are: float32 on a CPU, neither cast by autocast nor compiled."""
    return (
        tensor.is_cpu
        and weight.is_cpu
        and tensor.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
