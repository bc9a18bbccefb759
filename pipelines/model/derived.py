"""Values made of weights alone, kept from one pass to the next while nothing is learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")


class Derived(nn.Module, Generic[Value]):
    """What a function makes of weights, kept in evaluation mode until one of them changes.

    A module so that `train()` and a move to another device or type reach it and free what it keeps; it has no
    parameters and nothing in a checkpoint.

    NOTE: changes are seen where torch counts them (operations in place, foreach optimizers), for a new parameter and
    for a new storage. Fused optimizers do not count theirs: whoever computes gradients calls `forget`. What is written
    through `Tensor.data`, or through an array that shares the memory, is not seen before `forget` or `train()`.
    """

    def __init__(self, make: Callable[..., Value]) -> None:
        super().__init__()
        self.make = make
        self._kept: tuple[list[Tensor], list[tuple[int, int]], Value] | None = None

    def forward(self, *weights: Tensor) -> Value:
        """The value of these weights."""
        if self.training:
            return self.make(*weights)
        marks = [_mark(weight) for weight in weights]
        # The weights themselves are held as well, so that no other tensor can come to lie where they lay.
        if self._kept is not None:
            known, known_marks, value = self._kept
            if marks == known_marks and all(old is new for old, new in zip(known, weights, strict=True)):
                return value
        value = self.make(*weights)
        self._kept = (list(weights), marks, value)
        return value

    def forget(self) -> None:
        """Free what is kept: weights are about to change."""
        # An assignment of nothing to nothing would still be one to torch's compiler.
        if self._kept is not None:
            self._kept = None

    def train(self, mode: bool = True) -> Self:
        """Training changes weights."""
        if mode:
            self.forget()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """What `to()` and its like come to."""
        self.forget()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes its own value: those of oneDNN can't be copied."""
        return {**self.__dict__, "_kept": None}


def _mark(weight: Tensor) -> tuple[int, int]:
    """Where a weight lies and how often it was changed; those made in inference mode are not counted."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version  # noqa: SLF001, torch has no other
