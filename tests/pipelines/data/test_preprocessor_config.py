"""Settings of preprocessing that a checkpoint folder holds: what is not done is not accepted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.preprocessor_config import PREPROCESSOR_FILE, check_preprocessing, describe_preprocessing
from pipelines.networks import SHIPPED
from pipelines.pretrained import load_checkpoint
from shards.errors import CheckpointError


def test_the_description_passes_its_own_check_also_after_json() -> None:
    described = json.loads(json.dumps(describe_preprocessing(320, 50)))
    check_preprocessing(described, PREPROCESSOR_FILE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"antialias": True}, "antialias is True; igvg's networks take False"),
        ({"antialais": False}, "no setting antialais; did you mean antialias"),
        ({"resample": 3}, "resample is 3; igvg's networks take 2"),
        ({"image_mean": [0.5, 0.5, 0.5]}, "image_mean is"),
        ({"image_mean": ["a", "b", "c"]}, "image_mean is"),
        ({"image_mean": [0.5]}, "image_mean is"),
        ({"size": {"height": 224, "width": 224}}, "size is 224 × 224, and image_size of config.json is 96"),
        ({"size": {"height": 96}}, "a square of whole pixels"),
        ({"size": [96, 96]}, "a square of whole pixels"),
        ({"size": [96] * 9000}, "a square of whole pixels"),
        ({"rescale_factor": 10**400}, "rescale_factor is 1000"),
        ({"image_mean": [10**400] * 3}, "image_mean is"),
        ({"max_tokens": "x" * 9000}, "max_tokens is"),
    ],
)
def test_a_checkpoint_folder_with_other_preprocessing_is_an_error(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    folder = shutil.copytree(SHIPPED["shapes"], tmp_path / "checkpoint")
    file = folder / PREPROCESSOR_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(folder)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


def test_settings_that_are_no_mapping_are_an_error(tmp_path: Path) -> None:
    folder = shutil.copytree(SHIPPED["shapes"], tmp_path / "checkpoint")
    (folder / PREPROCESSOR_FILE).write_text("[]")
    with pytest.raises(CheckpointError, match="holds no settings of a processor"):
        load_checkpoint(folder)
