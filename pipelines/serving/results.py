"""Raw outputs of recent requests, kept under ids that cannot be guessed, in bounded number, size and time."""

from __future__ import annotations

import dataclasses
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pipelines.prediction.raw_output import RawOutput

_ID_BYTES = 24


@dataclass(frozen=True, slots=True, eq=False)
class KeptResult:
    """The network's outputs for one image and its expressions."""

    raw: tuple[RawOutput, ...]
    """One for each expression; `original_size` is that of the upright image."""
    texts: tuple[str, ...]
    """The expressions."""

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays."""
        values = [getattr(raw, each.name) for raw in self.raw for each in dataclasses.fields(raw)]
        return sum(value.nbytes for value in values if isinstance(value, np.ndarray))


@dataclass(slots=True)
class _Entry:
    result: KeptResult
    num_bytes: int
    used: float


@dataclass(kw_only=True)
class ResultStore:
    """Results by id; the least recently used are dropped first. Threads may share it."""

    max_results: int
    max_bytes: int
    max_seconds: float
    clock: Callable[[], float] = time.monotonic
    _entries: OrderedDict[str, _Entry] = field(default_factory=OrderedDict)
    _num_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        """Number of results."""
        with self._lock:
            self._drop_old()
            return len(self._entries)

    def add(self, result: KeptResult) -> str:
        """Keep a result; returns its id. The newest is kept even if it alone exceeds the memory."""
        with self._lock:
            result_id, num_bytes = secrets.token_urlsafe(_ID_BYTES), result.num_bytes
            self._entries[result_id] = _Entry(result, num_bytes, self.clock())
            self._num_bytes += num_bytes
            self._drop_old()
            return result_id

    def find(self, result_id: str) -> KeptResult | None:
        """The result of an id, or None if it is unknown or was dropped."""
        with self._lock:
            self._drop_old()
            entry = self._entries.get(result_id)
            if entry is None:
                return None
            entry.used = self.clock()
            self._entries.move_to_end(result_id)
            return entry.result

    def remove(self, result_id: str) -> bool:
        """Drop a result; whether it was there."""
        with self._lock:
            return self._drop(result_id)

    def _drop_old(self) -> None:
        oldest = self.clock() - self.max_seconds
        while self._entries:
            first, entry = next(iter(self._entries.items()))
            too_many = len(self._entries) > self.max_results
            too_large = len(self._entries) > 1 and self._num_bytes > self.max_bytes
            if not (too_many or too_large or entry.used < oldest):
                return
            self._drop(first)

    def _drop(self, result_id: str) -> bool:
        entry = self._entries.pop(result_id, None)
        self._num_bytes -= entry.num_bytes if entry else 0
        return entry is not None
