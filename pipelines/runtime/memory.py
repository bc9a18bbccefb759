"""How the C library keeps memory between the steps of a training on a CPU."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt (malloc.h), and the threshold that is never reached.
_TRIM_THRESHOLD, _MOST_MAPPINGS = -1, -4
_NEVER = -1


def keep_freed_memory() -> None:
    """Keep what tensors leave for the next ones, instead of giving it back to the system; with glibc only.

    Else every large tensor of every step comes from the system anew, one zeroed page after the other.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MOST_MAPPINGS, 0)
        mallopt(_TRIM_THRESHOLD, _NEVER)
