"""preprocessor_config.json: how images are resized and normalized, in the words of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.data.image_transforms import PIXEL_MEAN, PIXEL_STD
from shards.errors import CheckpointError, near_match_hint, to_line

PREPROCESSOR_FILE = "preprocessor_config.json"
# Pillow's number of the filter.
_BILINEAR = 2
# What transformers adds to the file.
PREPROCESSOR_LABELS = frozenset(
    {"image_processor_type", "feature_extractor_type", "processor_class", "auto_map", "_processor_class"}
)


def describe_preprocessing(size: int, max_tokens: int) -> dict[str, Any]:
    """The content of preprocessor_config.json.

    Args:
        size: side of the network's square image in pixels.
        max_tokens: tokens of an expression at most.
    """
    return {
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": _BILINEAR,
        "antialias": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [round(value / 255, 6) for value in PIXEL_MEAN],
        "image_std": [round(value / 255, 6) for value in PIXEL_STD],
        "max_tokens": max_tokens,
    }


def check_preprocessing(values: Mapping[str, Any], origin: str) -> None:
    """Check that settings are those of igvg's networks; `size` and `max_tokens` may have any value, and keys may lack.

    Args:
        values: what a preprocessor_config.json holds.
        origin: names it in errors.

    Raises:
        CheckpointError: an unknown key (names the nearest), or another value.
    """
    expected = describe_preprocessing(0, 0)
    for name, value in values.items():
        if name in PREPROCESSOR_LABELS or value is None:
            continue
        if name not in expected:
            raise CheckpointError(f"{origin}: no setting {to_line(name)}; {near_match_hint(name, [*expected])}")
        if name not in ("size", "max_tokens") and not _equal(value, expected[name]):
            raise CheckpointError(f"{origin}: {name} is {to_line(str(value))}; igvg's networks take {expected[name]}")


def read_image_side(size: Any, origin: str) -> int:
    """Side in pixels of the square image that a setting `size` describes.

    Raises:
        CheckpointError: it describes none.
    """
    sides = (size.get("height"), size.get("width")) if isinstance(size, Mapping) else (size, size)
    if type(sides[0]) is not int or sides[0] != sides[1] or sides[0] < 1:
        raise CheckpointError(f"{origin}: size is {to_line(str(size))}; igvg's networks take a square of whole pixels")
    return sides[0]


def _equal(value: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(expected)
            and all(isinstance(each, int | float) and abs(each) < 1e9 for each in value)
            and np.allclose(value, expected, rtol=0, atol=1e-6)
        )
    if isinstance(expected, float):
        return isinstance(value, int | float) and abs(value) < 1e9 and abs(value - expected) < 1e-9
    return bool(value == expected)
