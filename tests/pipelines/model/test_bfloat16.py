"""The base network in bfloat16 gives the results of float32 within stated bounds.

Its weights are random: all patches then get nearly the same attention, and rounding decides which become points.
"""

from __future__ import annotations

import pytest
import torch

from pipelines.config.presets import BASE
from pipelines.model import IGVGModel, IGVGOutput
from pipelines.runtime.precision import autocast_context

BOXES, EXISTENCE, PIXELS = 0.01, 0.001, 0.005


@pytest.fixture(scope="module")
def outputs() -> tuple[IGVGOutput, IGVGOutput]:
    torch.manual_seed(0)
    config = BASE
    model = IGVGModel(config).eval()
    pixels = torch.randn(2, 3, config.image_size, config.image_size)
    inputs = pixels, torch.randint(4, 900, (2, 12)), torch.ones(2, 12, dtype=torch.int64)
    with torch.inference_mode():
        exact = model(*inputs)
        with autocast_context(pixels.device, "bf16"):
            return exact, model(*inputs)


def find_same_points(exact: IGVGOutput, rounded: IGVGOutput) -> torch.Tensor:
    """(B, Q): queries with the same point; a near tie may be decided otherwise in bfloat16."""
    return (exact.points == rounded.points).all(dim=-1)


def test_boxes_of_queries_with_the_same_points_stay_within_a_hundredth(
    outputs: tuple[IGVGOutput, IGVGOutput],
) -> None:
    exact, rounded = outputs
    same = find_same_points(exact, rounded)
    assert same.float().mean() >= 0.5
    assert (exact.boxes - rounded.boxes.float())[same].abs().max() <= BOXES


def test_the_probability_of_a_target_stays_within_a_thousandth(outputs: tuple[IGVGOutput, IGVGOutput]) -> None:
    existence = (output.existence_logits.float().softmax(dim=-1) for output in outputs)
    torch.testing.assert_close(*existence, atol=EXISTENCE, rtol=0)


def test_the_global_mask_differs_in_one_pixel_of_two_hundred_at_most(outputs: tuple[IGVGOutput, IGVGOutput]) -> None:
    exact, rounded = outputs
    assert ((exact.global_mask_logits > 0) != (rounded.global_mask_logits > 0)).float().mean() <= PIXELS
