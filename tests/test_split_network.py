"""Processes that hold a slice of the network each (FSDP) train what one process trains, and any number continues it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines import load_pretrained
from pipelines.training.sharded_state import join_parts
from pipelines.training.state_files import read_state
from tests.support.distributed_steps import train_steps
from tests.support.drawn_shards import write_noise
from tests.support.launched_processes import torchrun

SPLIT = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
SAVED, LAST = 2, 4
# As in test_distributed_steps.py, with all that changes what a rank computes and holds.
SETTINGS = (
    "batch_size=12", "sync_batchnorm=true", "optimizer.eps=1e-3", "ema_decay=0.5", "activation_checkpointing=true",
    "keep_states=1", "model.encoder_layers=2", "frozen_encoder_layers=1",
)  # fmt: skip
INERT = ("query_generation.cross_attn.k_proj.bias", "self_attn.qk_proj.bias")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("shards") / "noise", 97, ((), (0,), (0, 1)))


@pytest.fixture(scope="module")
def alone(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process trains without a stop."""
    out = tmp_path_factory.mktemp("alone") / "run"
    train_steps(shards, out, LAST, SETTINGS)
    return out


@pytest.fixture(scope="module")
def split(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes that split the network train up to the step in the middle."""
    out = tmp_path_factory.mktemp("split") / "run"
    train_split(shards, out, SAVED, processes=2)
    return out


def train_split(shards: Path, out: Path, last: int, *, processes: int) -> None:
    words = ("-m", "tests.support.distributed_steps", shards, out, str(last), *SETTINGS)
    result = torchrun(*words, processes=processes, **SPLIT)
    assert result.returncode == 0, result.stderr


def read_losses(out: Path, last: int) -> list[dict[str, float]]:
    losses: list[dict[str, float]] = json.loads((out / f"steps-{last}.json").read_text())["losses"]
    return losses


def assert_same_losses(found: Sequence[dict[str, float]], expected: Sequence[dict[str, float]]) -> None:
    assert len(found) == len(expected) > 0
    for losses, expected_losses in zip(found, expected, strict=True):
        assert losses == pytest.approx(expected_losses, rel=1e-5, abs=1e-9)


def assert_same_tensors(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Every tensor relative to its norm, to 1e-5."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        difference = (found[name] - tensor).float().norm().item()
        assert name.endswith(INERT) or difference <= 1e-5 * tensor.float().norm().item() + 1e-6, name


def test_two_processes_that_split_the_network_take_the_steps_of_one_that_holds_it(split: Path, alone: Path) -> None:
    assert_same_losses(read_losses(split, SAVED), read_losses(alone, LAST)[:SAVED])
    weights, expected = (load_file(out / f"weights-{SAVED}.safetensors") for out in (split, alone))
    assert_same_tensors(weights, expected)


def test_processes_that_split_the_network_return_the_memory_of_gathered_weights(split: Path) -> None:
    assert json.loads((split / f"steps-{SAVED}.json").read_text())["kept"] < 16


def test_each_process_writes_its_own_half_of_weights_moments_and_average(split: Path) -> None:
    state = torch.load(split / "state" / "state.pt", weights_only=True)
    assert state["sharded"] == ["sharded-1", 2]
    assert not [name for name, tensor in state["model"].items() if tensor.is_floating_point() and "running" not in name]
    files = [split / "state" / "sharded-1" / f"rank-{rank}-of-2.pt" for rank in (0, 1)]
    first, second = (torch.load(file, weights_only=True) for file in files)
    assert first.keys() == second.keys()
    assert {path[0] for path in first} == {"model", "optimizer", "ema"}
    sizes = [sum(tensor.numel() for tensor in shards.values()) for shards in (first, second)]
    assert sizes[1] > 0.8 * sizes[0]


def test_the_checkpoint_of_a_split_network_is_whole(split: Path) -> None:
    """The moving average is what is scored."""
    load_pretrained(split)
    state = read_state(split / "state")
    assert state is not None
    found = load_file(split / "model.safetensors")
    assert found.keys() == state["ema"].keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, join_parts(state["ema"][name])), name


@pytest.mark.parametrize("processes", [1, 3])
def test_another_number_of_processes_continues_with_the_same_examples_and_losses(
    processes: int, split: Path, alone: Path, shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(split, out)
    if processes == 1:
        train_steps(shards, out, LAST, SETTINGS)
        assert not list((out / "state").glob("sharded-*"))
    else:
        train_split(shards, out, LAST, processes=processes)
        assert [folder.name for folder in (out / "state").glob("sharded-*")] == ["sharded-2"]
    assert_same_losses(read_losses(out, LAST), read_losses(alone, LAST)[SAVED:])
    assert_same_tensors(*(load_file(folder / f"weights-{LAST}.safetensors") for folder in (out, alone)))
    assert_same_tensors(*(load_file(folder / "model.safetensors") for folder in (out, alone)))
