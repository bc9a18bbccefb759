"""Two processes that split the network train what two that hold all of it train, with every setting that may change it.

Each training is saved, and continued from its state. Both ways draw the same dropout and normalize the same parts, so
that only the order of sums differs.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.launched_processes import torchrun
from tests.support.small_training import write_set
from tests.support.split_trainings import CASES, SPOILED, STEPS, VALIDATED

# A bias of keys changes no attention: its gradient is rounding alone.
INERT = ("query_generation.cross_attn.k_proj.bias", "self_attn.qk_proj.bias")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("trained")
    result = torchrun("-m", "tests.support.split_trainings", write_set(home), home / "runs", FSDP_VERSION="2")
    assert result.returncode == 0, result.stderr
    return home / "runs"


def read_case(home: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What whole networks and what a split one became."""
    whole, split = (torch.load(home / name / f"{kind}.pt", weights_only=True) for kind in ("whole", "split"))
    assert (whole["split"], split["split"]) == (False, True)
    assert whole["skipped"] == split["skipped"] == int(name in SPOILED)
    assert len(whole["steps"]) == len(split["steps"]) == STEPS[-1]
    assert whole.keys() == split.keys()
    assert ("averages" in whole) == ("ema_decay=0.5" in CASES[name])
    assert len(whole["moments"]) > 0.5 * len(whole["weights"])
    return whole, split


def measure_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The norm of the difference of all tensors, relative to their norm."""
    one, other = (torch.cat([each[name].double().flatten() for name in expected]) for each in (found, expected))
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("name", [name for name in CASES if name != "bf16"])
def test_a_training_of_a_split_network_is_that_of_whole_ones(name: str, trained: Path) -> None:
    whole, split = read_case(trained, name)
    for step, (values, expected) in enumerate(zip(split["steps"], whole["steps"], strict=True), start=1):
        assert values == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True)
        assert math.isnan(values["total"]) == (step == SPOILED.get(name))
    assert split["validated"] == whole["validated"]
    assert len(split["validated"]) % VALIDATED == 0 < len(split["validated"])
    for kind in whole.keys() & {"weights", "averages", "moments"}:
        for tensor_name, expected in whole[kind].items():
            difference = (split[kind][tensor_name] - expected).double().norm().item()
            close = difference <= 1e-5 * expected.double().norm().item() + 1e-6
            assert close or tensor_name.endswith(INERT), (kind, tensor_name)


def test_in_bfloat16_a_split_network_rounds_the_sums_of_gradients_otherwise(trained: Path) -> None:
    """What a layer's input got from several readers is added in bfloat16, in another order."""
    whole, split = read_case(trained, "bf16")
    first, expected = ({**each["steps"][0], "norm": 0} for each in (split, whole))
    assert first == pytest.approx(expected, rel=1e-5, abs=1e-6)
    for values, expected in zip(split["steps"], whole["steps"], strict=True):
        assert values == pytest.approx(expected, rel=0.03)
    assert measure_difference(split["weights"], whole["weights"]) < 1e-3
    averages = ({name: value for name, value in each["moments"].items() if name.startswith("exp_avg ")}
                for each in (split, whole))  # fmt: skip
    assert measure_difference(*averages) < 0.2
