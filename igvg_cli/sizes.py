"""Numbers of bytes for people."""

from __future__ import annotations


def format_size(size: int) -> str:
    """A number of bytes in the largest unit in which it is at least 1."""
    value, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{size} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
