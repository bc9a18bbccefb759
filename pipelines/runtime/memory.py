"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt (malloc.h): M_TRIM_THRESHOLD and M_MMAP_MAX.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = -1


def keep_freed_memory() -> None:
    """Reuse freed memory for the tensors of the next training step instead of returning it to the system; glibc only.

    Otherwise the system maps and zeroes the pages of every large tensor in every step.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _NEVER)
