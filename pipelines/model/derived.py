"""Values made of weights alone, kept from one pass to the next while nothing is learnt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

Value = TypeVar("Value")


class Derived(nn.Module, Generic[Value]):
    """What a function makes of weights, kept in evaluation mode until torch sees one of them change.

    A module so that `train()` and a move to another device or type reach it and free what it keeps; it has no
    parameters and nothing in a checkpoint.

    NOTE: seen are operations in place, steps of any optimizer, a new parameter and a new storage. What is written
    through `Tensor.data`, an array that shares the memory or a collective of torch.distributed is not, nor are the
    statistics of a batch norm in training; after those call `forget`, or `train()` and `eval()` of the whole network.
    """

    def __init__(self, make: Callable[..., Value]) -> None:
        super().__init__()
        self.make = make
        self._kept: tuple[list[Tensor], list[Tensor], list[int], Value] | None = None

    def get(self, *weights: Tensor) -> Value | None:
        """The value of these weights; None where it can't be kept: in training, and for weights of inference mode."""
        if self.training or any(weight.is_inference() for weight in weights):
            return None
        marks = [_Steps.taken, *(weight._version for weight in weights)]  # noqa: SLF001, torch has no other count
        if (kept := self._kept) is not None:
            known, storages, known_marks, value = kept
            if marks == known_marks and all(
                old is new and storage.data_ptr() == new.data_ptr()
                for old, storage, new in zip(known, storages, weights, strict=True)
            ):
                return value
        value = self.make(*weights)
        # Detached, each holds its storage, so that no other can come to lie there.
        self._kept = (list(weights), [weight.detach() for weight in weights], marks, value)
        return value

    def forget(self) -> None:
        """Free what is kept: weights have changed, or are about to."""
        self._kept = None

    def train(self, mode: bool = True) -> Self:
        """Training changes weights."""
        if mode:
            self.forget()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Called by `to`, `cuda`, `half` and the like."""
        self.forget()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes its own value: not every kind of value can be copied."""
        return {**self.__dict__, "_kept": None}


class _Steps:
    """How many steps optimizers took in this process: the fused ones change weights without torch counting it."""

    taken = 0

    @classmethod
    def count(cls, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG003
        cls.taken += 1


register_optimizer_step_post_hook(_Steps.count)
