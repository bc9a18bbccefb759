"""The preprocessing of images and expressions that a checkpoint's network expects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.image_reading import read_resized
from pipelines.data.image_transforms import resize_image
from pipelines.data.tokenizer import tokenize_expressions


@dataclass(frozen=True, kw_only=True)
class Processor:
    """Prepares images and expressions for the network."""

    tokenizer: Any
    """The checkpoint's tokenizer."""
    max_tokens: int
    """Tokens of an expression at most, including <s> and </s>."""
    image_size: int
    """Side of the network's square image, in pixels."""

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An RGB image (H, W, 3) of any size as (image_size, image_size, 3)."""
        return resize_image(image, self.image_size)

    def read(self, data: bytes, name: str) -> NDArray[np.uint8]:
        """The bytes of an image file as `resize` makes them of its pixels, to the bit.

        Raises:
            DataError: the bytes are not an image, or are damaged; begins with `name`.
        """
        return read_resized(data, name, self.image_size)

    def tokenize(self, expressions: Sequence[str]) -> list[list[int]]:
        """The token ids of each expression, not padded."""
        return tokenize_expressions(self.tokenizer, expressions, self.max_tokens)
