"""How an image and an expression become the input of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Processor:
    """How the network sees an example."""

    tokenizer: Any
    """The checkpoint's tokenizer."""
    max_tokens: int
    """Tokens of an expression at most."""
    image_size: int
    """Side of the network's picture in pixels."""
