"""Memory that a process shares with the workers that it forks, in slots: results lie there and are not copied again.

The memory belongs to no file, so that it needs neither /dev/shm nor open files, and takes only the pages that results
have filled. A slot is free again when nothing uses the arrays in it any more.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_ALIGNMENT = 64


class SharedSlots:
    """Slots of one size, given out by the process that made them.

    Raises:
        OSError: the system does not give that much memory.
    """

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self.memory = mmap.mmap(-1, count * size)
        self.free = list(range(count))

    def take(self) -> Slot | None:
        """A free slot, if there is one; it is free again after `Slot.give_back`, or when what was read from it is."""
        return Slot(self, self.free.pop()) if self.free else None


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot: a worker writes to it, then the process that gave it out reads it."""

    slots: SharedSlots
    index: int

    def write(self, views: Sequence[memoryview]) -> bool:
        """Write buffers; False, and nothing is written, if they do not fit."""
        offsets = _place([view.nbytes for view in views])
        if offsets[-1] > self.slots.size:
            return False
        start = self.index * self.slots.size
        for view, offset in zip(views, offsets, strict=False):
            self.slots.memory[start + offset : start + offset + view.nbytes] = view
        return True

    def read(self, sizes: Sequence[int]) -> list[memoryview]:
        """The buffers that were written, of these sizes, in place."""
        size = self.slots.size
        whole = np.frombuffer(self.slots.memory, dtype=np.uint8, count=size, offset=self.index * size)
        weakref.finalize(whole, self.slots.free.append, self.index).atexit = False
        return [whole[offset : offset + size].data for offset, size in zip(_place(sizes), sizes, strict=False)]

    def give_back(self) -> None:
        """Free the slot, which was not read."""
        self.slots.free.append(self.index)


def _place(sizes: Sequence[int]) -> list[int]:
    """The offset of each buffer, and the end of the last."""
    offsets = [0]
    for size in sizes:
        offsets.append(offsets[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
    return offsets
