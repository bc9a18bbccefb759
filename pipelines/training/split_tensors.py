"""Tensors of which every rank may hold a slice: PyTorch's DTensor."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a tensor; if it is split, every rank has to call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_tensor(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor: its slice, with the same memory, or all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def split_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, split as another one is; the tensor itself if that one is whole. Ranks do not communicate."""
    if not isinstance(like, DTensor):
        return tensor
    split = distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    # A slice would keep the memory of the whole tensor.
    return split.clone()
