"""Programs as they look on a terminal: run in a pseudo-terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Sequence

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>])")


def run_in_terminal(words: Sequence[str], width: int, **environment: str) -> tuple[int, str]:
    """Run a command on a terminal of `width` columns; returns its exit status and all that it wrote, with escapes."""
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "CI")}
    variables = inherited | {"TERM": "xterm-256color"} | environment
    with subprocess.Popen(list(words), stdin=secondary, stdout=secondary, stderr=secondary, env=variables) as process:
        os.close(secondary)
        written = bytearray()
        while True:
            try:
                block = os.read(primary, 65536)
            except OSError:  # how Linux says that the other side is closed
                break
            if not block:
                break
            written += block
    os.close(primary)
    return process.returncode, written.decode().replace("\r\n", "\n")


def strip_escapes(text: str) -> str:
    """A text without the sequences that color it or move the cursor."""
    return _ESCAPES.sub("", text)
