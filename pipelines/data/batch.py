"""Examples, and the padded batches that are collated from them.

Letters: B batch, S side of the network's image in pixels, L text tokens, T targets of one expression, H = W side of the
target masks. An expression without a target has boxes (0, 4) and masks (0, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One expression with its image and targets."""

    id: str
    """DATASET/REF_ID/SENT_ID."""
    image: NDArray[np.uint8]
    """(S, S, 3) RGB."""
    input_ids: list[int]
    """Token ids, not padded."""
    original_size: tuple[int, int]
    """Height and width of the original image in pixels."""
    boxes: NDArray[np.float32]
    """(T, 4) cx, cy, w, h in [0, 1]."""
    masks: NDArray[np.bool_]
    """(T, H, W); H = W = 0 without target masks."""
    unmasked: tuple[int, ...] = ()
    """Indices of the targets of which only the box is known; their `masks` are empty and no ground truth."""
    crowds: int = 0
    """Crowd regions that the expression refers to besides its T targets; they have no boxes and masks here."""


@dataclass(frozen=True, slots=True)
class KnownMasks:
    """Which masks of a batch are ground truth; of the other targets only the box is known."""

    instances: list[Tensor]
    """For each expression (T,) float: 1 for a target with a mask, else 0."""
    global_masks: Tensor
    """(B,) float: 1 for an expression whose targets all have masks, else 0."""
    counts: list[int]
    """Number of targets with a mask, for each expression."""

    def map(self, function: Callable[[Tensor], Tensor]) -> KnownMasks:
        """The same with a function applied to every tensor."""
        return KnownMasks([function(each) for each in self.instances], function(self.global_masks), self.counts)

    def select(self, part: slice) -> KnownMasks:
        """The same of some of the expressions."""
        return KnownMasks(self.instances[part], self.global_masks[part], self.counts[part])

    def __reduce__(self) -> tuple[Callable[..., KnownMasks], tuple[Any, ...]]:
        """Pickle tensors as arrays, which take no shared memory."""
        sizes = [len(each) for each in self.instances]
        return _rebuild_known, (sizes, self.counts, torch.cat(self.instances).numpy(), self.global_masks.numpy())


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of a batch."""

    boxes: list[Tensor]
    """For each expression (T, 4) cx, cy, w, h in [0, 1]."""
    instance_masks: list[Tensor]
    """For each expression (T, H, W) bool."""
    global_masks: Tensor
    """(B, H, W) bool: the union of an expression's instance masks."""
    exists: Tensor
    """(B,) bool: whether the expression has a target, or refers to a crowd region."""
    known: KnownMasks | None = None
    """Which masks are ground truth; None: all of them."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Targets:
        """The targets with a function applied to every tensor."""
        boxes, masks = [function(boxes) for boxes in self.boxes], [function(masks) for masks in self.instance_masks]
        known = self.known and self.known.map(function)
        return Targets(boxes, masks, function(self.global_masks), function(self.exists), known)

    def __reduce__(self) -> tuple[Callable[..., Targets], tuple[Any, ...]]:
        """Pickle lists of tensors as one array each: tensors would take shared memory and a file descriptor each."""
        counts = [len(boxes) for boxes in self.boxes]
        tensors = torch.cat(self.boxes), torch.cat(self.instance_masks), self.global_masks, self.exists
        return _split_targets, (counts, self.known, *(tensor.numpy() for tensor in tensors))

    def select(self, part: slice) -> Targets:
        """The targets of some of the expressions."""
        known = self.known and self.known.select(part)
        return Targets(self.boxes[part], self.instance_masks[part], self.global_masks[part], self.exists[part], known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Collated examples, the input of one forward pass."""

    pixel_values: Tensor
    """(B, S, S, 3) uint8 RGB; `normalize_images` converts it on the device."""
    input_ids: Tensor
    """(B, L) int64, padded to the longest expression."""
    attention_mask: Tensor
    """(B, L) int64, 1 = token, 0 = padding."""
    targets: Targets | None
    """None without target masks."""
    ids: list[str]
    """The expressions' ids."""
    original_sizes: Tensor
    """(B, 2) int64 height, width of the original images in pixels; stays on the CPU."""

    def __len__(self) -> int:
        """Number of expressions."""
        return len(self.ids)

    def __reduce__(self) -> tuple[Callable[..., Batch], tuple[Any, ...]]:
        """Pickle tensors as arrays, which take no shared memory."""
        tensors = self.pixel_values, self.input_ids, self.attention_mask, self.original_sizes
        return _rebuild_batch, (self.targets, self.ids, *(tensor.numpy() for tensor in tensors))

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device; copying from pinned memory overlaps with computation."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def split(self, parts: int) -> list[Batch]:
        """Parts of equal size, in order, with the padding of the whole batch.

        Raises:
            ValueError: the size of the batch is not a multiple of `parts`.
        """
        if parts < 1 or len(self) % parts:
            raise ValueError(f"a batch of {len(self)} expressions cannot be split into {parts} equal parts")
        size = len(self) // parts
        return [self._select(slice(start, start + size)) for start in range(0, len(self), size)]

    def pad_texts(self, length: int, pad_id: int) -> Batch:
        """The batch with texts of `length` tokens; the batch itself if they are as long already."""
        missing = length - self.input_ids.shape[1]
        if missing <= 0:
            return self
        input_ids = torch.nn.functional.pad(self.input_ids, (0, missing), value=pad_id)
        return replace(
            self, input_ids=input_ids, attention_mask=torch.nn.functional.pad(self.attention_mask, (0, missing))
        )

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            pixel_values=function(self.pixel_values),
            input_ids=function(self.input_ids),
            attention_mask=function(self.attention_mask),
            targets=self.targets and self.targets.map(function),
        )

    def _select(self, part: slice) -> Batch:
        return Batch(
            pixel_values=self.pixel_values[part],
            input_ids=self.input_ids[part],
            attention_mask=self.attention_mask[part],
            targets=self.targets and self.targets.select(part),
            ids=self.ids[part],
            original_sizes=self.original_sizes[part],
        )


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Stack examples, at least one, with images of one size and masks of one size.

    Raises:
        ValueError: there is no example.
    """
    if not examples:
        raise ValueError("a batch of no examples")
    longest = max(len(example.input_ids) for example in examples)
    input_ids = np.full((len(examples), longest), pad_id, dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    for row, example in enumerate(examples):
        input_ids[row, : len(example.input_ids)] = example.input_ids
        attention_mask[row, : len(example.input_ids)] = 1
    return Batch(
        pixel_values=torch.from_numpy(np.stack([example.image for example in examples])),
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(attention_mask),
        targets=_collate_targets(examples) if examples[0].masks.shape[-1] else None,
        ids=[example.id for example in examples],
        original_sizes=torch.tensor([example.original_size for example in examples], dtype=torch.int64),
    )


def _split_targets(counts: list[int], known: KnownMasks | None, *arrays: NDArray[Any]) -> Targets:
    boxes, instance_masks, global_masks, exists = map(torch.from_numpy, arrays)
    split_boxes, split_masks = list(torch.split(boxes, counts)), list(torch.split(instance_masks, counts))
    return Targets(split_boxes, split_masks, global_masks, exists, known)


def _rebuild_known(sizes: list[int], counts: list[int], *arrays: NDArray[Any]) -> KnownMasks:
    instances, global_masks = map(torch.from_numpy, arrays)
    return KnownMasks(list(torch.split(instances, sizes)), global_masks, counts)


def _rebuild_batch(targets: Targets | None, ids: list[str], *arrays: NDArray[Any]) -> Batch:
    pixel_values, input_ids, attention_mask, original_sizes = map(torch.from_numpy, arrays)
    return Batch(
        pixel_values=pixel_values,
        input_ids=input_ids,
        attention_mask=attention_mask,
        targets=targets,
        ids=ids,
        original_sizes=original_sizes,
    )


def _collate_targets(examples: Sequence[Example]) -> Targets:
    return Targets(
        boxes=[torch.from_numpy(np.ascontiguousarray(example.boxes, dtype=np.float32)) for example in examples],
        instance_masks=[torch.from_numpy(np.ascontiguousarray(example.masks)) for example in examples],
        global_masks=torch.from_numpy(np.stack([example.masks.any(axis=0) for example in examples])),
        exists=torch.tensor([len(example.boxes) + example.crowds > 0 for example in examples]),
        known=_collate_known(examples) if any(example.unmasked for example in examples) else None,
    )


def _collate_known(examples: Sequence[Example]) -> KnownMasks:
    known = [np.ones(len(example.boxes), dtype=np.float32) for example in examples]
    for row, example in zip(known, examples, strict=True):
        row[list(example.unmasked)] = 0
    return KnownMasks(
        instances=[torch.from_numpy(row) for row in known],
        global_masks=torch.tensor([0.0 if example.unmasked else 1.0 for example in examples]),
        counts=[len(example.boxes) - len(example.unmasked) for example in examples],
    )
