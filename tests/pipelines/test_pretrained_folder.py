"""The folder that a training leaves, and the state that it continues from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipelines.pretrained import load_checkpoint
from pipelines.training.state_files import read_state, write_state
from shards.errors import CheckpointError
from tests.support.small_network import CONFIG, save_small_network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of a small network."""
    return save_small_network(tmp_path / "run")


def test_everything_that_prediction_needs_comes_back(folder: Path) -> None:
    model, tokenizer, max_tokens = load_checkpoint(folder)
    assert model.config == CONFIG
    assert not model.training
    assert max_tokens == 9
    assert len(tokenizer) <= CONFIG.vocab_size


def test_processors_of_other_libraries_can_read_the_picture_s_settings(folder: Path) -> None:
    values = json.loads((folder / "preprocessor_config.json").read_text())
    assert values["size"] == {"height": 32, "width": 32}
    assert values["image_mean"] == [0.485, 0.456, 0.406]
    assert values["image_std"] == [0.229, 0.224, 0.225]


def test_a_missing_folder_and_a_damaged_part_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"nowhere is no checkpoint; give a folder with config\.json .*, the name shapes, or USER/REPO",
    ):
        load_checkpoint(tmp_path / "nowhere")
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: is damaged"):
        load_checkpoint(folder)


def test_a_training_state_comes_back_as_it_was(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    write_state(tmp_path, {"step": 7, "model": {"w": torch.arange(3)}})
    state = read_state(tmp_path)
    assert state is not None
    assert state["step"] == 7
    assert state["model"]["w"].tolist() == [0, 1, 2]
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]


def test_a_damaged_training_state_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    write_state(tmp_path, {"step": 7})
    file = tmp_path / "state.pt"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="delete it, and the same command begins the training again"):
        read_state(tmp_path)
