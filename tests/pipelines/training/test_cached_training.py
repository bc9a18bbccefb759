"""A training reads the same from an image cache as from image files, with any number of workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.training.trainer import train
from pipelines.training.validation import validate
from tests.support.small_training import open_small, write_set


def train_small(shards: Path, out: Path, **changes: Any) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The losses of every step, and the weights at the end."""
    training = open_small(shards, out, max_steps=4, **changes)
    train(training)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["losses"] for line in lines if "losses" in line], training.model.state_dict()


@pytest.mark.parametrize("workers", [0, 2])
def test_losses_and_weights_are_the_same_to_the_bit_with_and_without_a_cache(tmp_path: Path, workers: int) -> None:
    shards = write_set(tmp_path)
    losses, weights = train_small(shards, tmp_path / "decoded")
    for name in ("building", "cached"):
        found, cached = train_small(shards, tmp_path / name, cache=True, workers=workers)
        assert found == losses
        assert len(found) == 4
        assert all(torch.equal(cached[key], value) for key, value in weights.items())
    assert len(list((shards / "cache").glob("val-*.images"))) == 1


def test_a_cache_without_room_changes_nothing(tmp_path: Path) -> None:
    shards = write_set(tmp_path)
    losses, _ = train_small(shards, tmp_path / "decoded")
    assert train_small(shards, tmp_path / "cached", cache=True, cache_limit=0.0)[0] == losses
    assert not (shards / "cache").exists()


def test_validation_splits_are_read_from_caches_too(tmp_path: Path) -> None:
    shards = write_set(tmp_path)
    expected = validate(open_small(shards, tmp_path / "decoded"))
    training = open_small(shards, tmp_path / "cached", cache=True)
    # The validation reads no image file.
    (tar,) = (shards / "val").glob("*.tar")
    tar.write_bytes(tar.read_bytes().replace(b"IHDR", b"IHDX"))
    assert validate(training) == expected
    assert len(expected[0]) == 1
