"""The moving average of the weights is what is validated and kept, and outlasts a stop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.training.state import save_state
from pipelines.training.trainer import open_batches, train_step, validate_and_save_best
from tests.support.small_training import open_small, write_set

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("ema"))


def follow(shards: Path, out: Path, steps: int) -> tuple[State, State, State]:
    """Train on to a step; returns the last weights, their average by its definition, and the average that is held."""
    training = open_small(shards, out, ema_decay=0.4)
    assert training.ema is not None
    state = {name: tensor.double() for name, tensor in training.ema.model.state_dict().items()}
    for batch in open_batches(training):
        train_step(training, batch)
        decay = min(0.4, (1 + training.step) / (10 + training.step))
        for name, value in training.model.state_dict().items():
            state[name] = decay * state[name] + (1 - decay) * value if value.is_floating_point() else value.double()
        training.step += 1
        if training.step == steps:
            break
    save_state(training)
    validate_and_save_best(training)
    return training.model.state_dict(), state, training.ema.model.state_dict()


def test_the_average_follows_weights_and_statistics_also_over_a_stop_and_is_the_checkpoint(
    shards: Path, tmp_path: Path
) -> None:
    follow(shards, tmp_path / "stopped", 2)
    *_, resumed = follow(shards, tmp_path / "stopped", 3)
    last, expected, found = follow(shards, tmp_path / "whole", 3)
    kept = load_file(tmp_path / "whole" / "model.safetensors")
    assert kept.keys() == found.keys() == last.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-7)
        assert torch.equal(kept[name], tensor), name
        assert torch.equal(resumed[name], tensor), name
        assert torch.equal(last[name], tensor) == (not tensor.is_floating_point()), name
    assert int(found["pixel_decoder.blocks.0.bn1.num_batches_tracked"]) == 3
