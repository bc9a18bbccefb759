"""Twenty steps of one process, of several, and of several micro-batches are the same to the rounding of float32.

Dropout is off: its masks depend on rank and world size. Adam's epsilon is 1e-3 where batch norms are synchronized, and
1e-6 where they are frozen: with the published 1e-9 a weight whose gradient is rounding alone moves by a whole step, and
the losses after 20 steps differ by up to 1e-4.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.distributed_steps import train_steps
from tests.support.drawn_shards import write_noise
from tests.support.launched_processes import torchrun_on_machines

STEPS = 20
SYNCHRONIZED = ("batch_size=12", "sync_batchnorm=true", "optimizer.eps=1e-3")
# A bias of keys changes no attention: its gradient is rounding alone, which Adam scales to whole steps.
INERT = ("query_generation.cross_attn.k_proj.bias", "self_attn.qk_proj.bias")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("shards") / "noise", 97, ((), (0,), (0, 1)))


def run_alone(shards: Path, out: Path, settings: Sequence[str]) -> tuple[dict[str, torch.Tensor], Any]:
    train_steps(shards, out, STEPS, settings)
    return read_steps(out)


def read_steps(out: Path) -> tuple[dict[str, torch.Tensor], Any]:
    """The last weights, and what was seen in each step."""
    return load_file(out / f"weights-{STEPS}.safetensors"), json.loads((out / f"steps-{STEPS}.json").read_text())


def count_processes(seen: Any) -> set[int]:
    """World sizes of the steps, as the processes gathered them."""
    return {len(step) for step in seen["boxes"]}


def assert_same(
    found: tuple[dict[str, torch.Tensor], Any], expected: tuple[dict[str, torch.Tensor], Any], relative: float = 1e-5
) -> None:
    """Every loss of every step to 1e-5, and every tensor relative to its norm."""
    (weights, seen), (expected_weights, expected_seen) = found, expected
    assert len(seen["losses"]) == STEPS
    for losses, expected_losses in zip(seen["losses"], expected_seen["losses"], strict=True):
        assert losses == pytest.approx(expected_losses, rel=1e-5, abs=1e-9)
    # A training that goes nowhere is the same in any number of processes.
    assert seen["losses"][-1]["total"] < 0.95 * seen["losses"][0]["total"]
    assert weights.keys() == expected_weights.keys()
    for name, tensor in expected_weights.items():
        difference = (weights[name] - tensor).float().norm().item()
        # The class token is zero at first, so that its norm is that of 20 steps.
        assert name.endswith(INERT) or difference <= relative * tensor.float().norm().item() + 1e-6, name


@pytest.fixture(scope="module")
def alone(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], Any]:
    """The steps of one process, which has the batch norms of torch."""
    return run_alone(shards, tmp_path_factory.mktemp("alone"), SYNCHRONIZED)


# Sums of three parts are rounded otherwise: after 20 steps the bias of a norm differed by 1.2e-5.
@pytest.mark.parametrize(("machines", "relative"), [(2, 1e-5), (3, 1e-4)])
def test_machines_with_synchronized_batch_norms_take_the_steps_of_one_process(
    shards: Path, alone: tuple[dict[str, torch.Tensor], Any], tmp_path: Path, machines: int, relative: float
) -> None:
    words = ("-m", "tests.support.distributed_steps", shards, tmp_path, str(STEPS), *SYNCHRONIZED)
    for result in torchrun_on_machines(*words, machines=machines):
        assert result.returncode == 0, result.stderr
    found = read_steps(tmp_path)
    assert count_processes(found[1]) == {machines}
    assert_same(found, alone, relative)
    # Gradients lie in the buckets that DistributedDataParallel sends; alone each has memory of its own.
    assert max(found[1]["blocks"]) <= 3 < 100 < min(alone[1]["blocks"])


def test_four_micro_batches_of_four_are_one_batch_of_sixteen(shards: Path, tmp_path: Path) -> None:
    """The batch norms' statistics are frozen, as those of a part are not the batch's."""
    settings = ("batch_size=16", "frozen_batchnorm=true", "optimizer.eps=1e-6")
    whole = run_alone(shards, tmp_path / "whole", settings)
    parts = run_alone(shards, tmp_path / "parts", (*settings, "micro_batches=4"))
    assert_same(parts, whole)
    assert torch.equal(parts[0]["pixel_decoder.blocks.0.bn1.running_mean"], torch.zeros(16))
