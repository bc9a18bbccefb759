"""The network's configuration: sizes that do not fit together are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipelines.config.model import IGVGConfig
from pipelines.config.overrides import from_mapping, to_mapping
from shards.errors import SettingsError
from tests.support.small_network import CONFIG


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_queries": 0}, "num_queries = 0: Input should be greater than or equal to 1"),
        ({"num_queries": 65}, "65 queries need as many patches; the grid has 64"),
        ({"image_size": 33}, "image_size 33 is not a multiple of patch_size 4"),
        ({"image_size": 36}, "a grid of 9 patches a side; it must be even"),
        ({"image_size": 8192}, "image_size = 8192: Input should be less than or equal to 4096"),
        ({"encoder_heads": 5}, "encoder_dim 24 is not a multiple of encoder_heads 5"),
        ({"hidden_dim": 18}, "hidden_dim = 18: Input should be a multiple of 4"),
        ({"text_positions": 2}, "text_positions = 2: Input should be greater than or equal to 3"),
        ({"drop_path": 1.0}, "drop_path = 1.0: Input should be less than 1"),
        ({"dropout": -0.1}, "dropout = -0.1: Input should be greater than or equal to 0"),
        ({"distance_weight": float("nan")}, "distance_weight = nan: Input should be a finite number"),
        ({"text_score": "max"}, "text_score = 'max': Input should be 'l2', 'mean' or 'none'"),
        ({"reference": "published"}, "reference = 'published': Input should be 'shifted' or 'point'"),
        ({"num_queries": "3"}, "num_queries = '3': Input should be a valid integer"),
        ({"num_queries": True}, "num_queries = True: Input should be a valid integer"),
    ],
)
def test_values_that_are_invalid_or_do_not_fit_together_are_errors(changes: dict[str, Any], message: str) -> None:
    values = to_mapping(replace(CONFIG, image_size=32, patch_size=4, encoder_dim=24, encoder_heads=4))
    with pytest.raises(SettingsError) as caught:
        from_mapping(IGVGConfig, values | changes, "config.json")
    assert str(caught.value).startswith(f"config.json: {message}")


def test_a_whole_number_may_stand_for_a_fraction() -> None:
    assert from_mapping(IGVGConfig, to_mapping(CONFIG) | {"dropout": 0}) == replace(CONFIG, dropout=0.0)
