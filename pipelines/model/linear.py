"""Linear maps that take the faster of torch's two matrix libraries on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


class Linear(nn.Linear):
    """`torch.nn.Linear`; without gradients, float32 tokens of a CPU go through oneDNN.

    Torch sends them to MKL, which took 9 % longer for the whole base network on two cores of an AMD EPYC (1.37 s and
    1.25 s at batch 2), most of all for the few tokens of a text. The operator is what torch's own compiler uses for a
    linear map; it has no gradient, and where torch does not ship it, `torch.nn.functional.linear` stays.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (…, in) to (…, out)."""
        if _ONEDNN is None or not _is_plain(tokens) or tokens.dtype != self.weight.dtype:
            return F.linear(tokens, self.weight, self.bias)
        out: Tensor = _ONEDNN(tokens, self.weight, self.bias, "none", [], "")
        return out


def _is_plain(tokens: Tensor) -> bool:
    return (
        tokens.is_cpu
        and tokens.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and tokens.numel() > 0
    )
