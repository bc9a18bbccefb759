"""The blocks of code of a page in docs/."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def read_blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of every block, in their order; the language of command lines that run is empty."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def read_commands(block: str) -> list[list[str]]:
    """The words behind `igvg` of each line of a block."""
    commands = [shlex.split(line) for line in block.splitlines()]
    assert all(name == "igvg" for name, *_ in commands), block
    return [words for _, *words in commands]
