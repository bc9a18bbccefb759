"""A saved state of another network or version is refused in one line, before anything of it is used."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config.settings import OptimizerSettings
from pipelines.training.state import save_state
from pipelines.training.state_files import read_state, write_state
from pipelines.training.trainer import open_batches, train_step
from shards.errors import CheckpointError
from shards.progress import set_sink
from tests.support.small_training import MODEL, open_small, write_set

State = dict[str, Any]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module")
def sound(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> State:
    """What a training has saved after its first step."""
    out = tmp_path_factory.mktemp("sound")
    training = open_small(shards, out, max_steps=3)
    train_step(training, next(open_batches(training)))
    training.step = 1
    save_state(training)
    state = read_state(out / "state")
    assert state is not None
    return state


def drop(*keys: str | int) -> Callable[[State], None]:
    """A change that takes something out."""

    def change(state: Any) -> None:
        for key in keys[:-1]:
            state = state[key]
        del state[keys[-1]]

    return change


def put(value: Any, *keys: str | int) -> Callable[[State], None]:
    """A change that sets something."""

    def change(state: Any) -> None:
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (drop("step"), "step is None, not a whole number up to 3"),
        (put("1", "step"), "step is '1'"),
        (put(-1, "step"), "step is -1"),
        (put("1", "scored"), "scored is '1'"),
        (put(None, "best"), "best is None"),
        (put("fp16", "arithmetics"), "arithmetics is 'fp16'"),
        (put(["fp8"], "arithmetics"), r"arithmetics is \['fp8'\]"),
        (drop("model"), "model is no dictionary of tensors"),
        (put(torch.zeros(2), "model"), "model is no dictionary of tensors"),
        (drop("model", "class_head.bias"), "model lacks class_head.bias"),
        (put(torch.zeros(2), "model", "other"), "model has an unknown other"),
        (put(torch.zeros(2), "model", "encoder.words.weight"), "an earlier igvg wrote it, whose tensors have other"),
        (put(torch.zeros(3), "model", "class_head.bias"), r"model.class_head.bias is \[3\] instead of \[2\]"),
        (put(0.5, "model", "class_head.bias"), r"model.class_head.bias is no tensor instead of \[2\]"),
        (drop("optimizer"), "optimizer is no state of Adam"),
        (put([], "optimizer"), "optimizer is no state of Adam"),
        (drop("optimizer", "state"), "optimizer is no state of Adam"),
        (drop("optimizer", "param_groups", 1), "optimizer.param_groups has other parameters"),
        (put([0], "optimizer", "param_groups", 1, "params"), "optimizer.param_groups has other parameters"),
        (drop("optimizer", "param_groups", 0, "base_lr"), "optimizer.param_groups has other parameters"),
        (put({}, "optimizer", "state", 10_000), "optimizer has an unknown parameter 10000"),
        (drop("optimizer", "state", 0, "exp_avg"), "optimizer.state.0 lacks exp_avg"),
        # Adam would write beyond the end of it.
        (put(torch.zeros(1), "optimizer", "state", 0, "exp_avg"), r"optimizer.state.0.exp_avg is \[1\] instead of"),
    ],
)
def test_what_does_not_fit_is_named_with_the_file_and_a_remedy(
    shards: Path, sound: State, tmp_path: Path, change: Callable[[State], None], named: str
) -> None:
    state = copy.deepcopy(sound)
    change(state)
    write_state(tmp_path / "state", state)
    with pytest.raises(CheckpointError, match=f"state.pt is no state of this training: {named}.*; delete it, and the"):
        open_small(shards, tmp_path, max_steps=3)


def test_states_of_earlier_versions_lack_what_was_computed_in_and_scored(
    shards: Path, sound: State, tmp_path: Path
) -> None:
    state = {name: value for name, value in sound.items() if name not in ("arithmetics", "scored")}
    write_state(tmp_path / "state", state)
    training = open_small(shards, tmp_path, max_steps=3)
    assert (training.step, training.validated_step, training.compute_dtypes) == (1, 1, ("fp32",))


def test_the_published_optimizer_keeps_its_largest_second_moments_over_a_stop(shards: Path, tmp_path: Path) -> None:
    words: dict[str, Any] = {"max_steps": 3, "optimizer": OptimizerSettings(amsgrad=True)}
    training = open_small(shards, tmp_path, **words)
    train_step(training, next(open_batches(training)))
    save_state(training)
    moments = open_small(shards, tmp_path, **words).optimizer.state_dict()["state"][0]["max_exp_avg_sq"]
    assert torch.equal(moments, training.optimizer.state_dict()["state"][0]["max_exp_avg_sq"])
    assert moments.any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "batch norms see other parts of a batch (sync_batchnorm is off), dropout draws other numbers, and sums"),
        ({"sync_batchnorm": True}, "stay the same; dropout draws other numbers, and sums are rounded otherwise"),
        ({"frozen_batchnorm": True}, "stay the same; dropout draws other numbers, and sums are rounded otherwise"),
        ({"frozen_batchnorm": True, "model": replace(MODEL, dropout=0.0, drop_path=0.0)}, "same; sums are rounded"),
        ({"sync_batchnorm": True, "micro_batches": 2}, "(micro_batches is not 1), dropout draws other numbers"),
    ],
)
def test_what_differs_with_another_number_of_processes_follows_from_the_settings(
    shards: Path, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    save_state(open_small(shards, tmp_path, **settings))
    state = read_state(tmp_path / "state")
    assert state is not None
    write_state(tmp_path / "state", state | {"processes": 2})
    lines: list[str] = []
    with set_sink(log=lines.append):
        open_small(shards, tmp_path, **settings)
    (line,) = lines
    assert line.startswith("the training continues from step 0 in 1 processes instead of 2: ")
    assert words in line
