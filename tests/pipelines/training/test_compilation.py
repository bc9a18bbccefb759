"""A compiled network computes what the network does; compilers that are missing or broken are named in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.data.image_transforms import normalize_images
from pipelines.training.compilation import compile_model
from pipelines.training.state_files import read_state
from pipelines.training.trainer import open_batches, train
from shards.errors import SettingsError
from tests.support.small_training import open_small, write_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("compilation"))


def test_the_network_is_compiled_once_for_texts_of_any_length_and_keeps_its_names(shards: Path, tmp_path: Path) -> None:
    compiled: list[Any] = []

    def count(module: torch.fx.GraphModule, _: Any) -> Any:
        compiled.append(module)
        return module.forward

    plain = open_small(shards, tmp_path / "plain")
    training = open_small(shards, tmp_path / "compiled")
    training.parallel_model = compile_model(training.model, torch.device("cpu"), backend=count)
    batch = next(open_batches(training))
    images = normalize_images(batch.pixel_values)
    for length in (5, 8, 6, 9):
        training.model.zero_grad()
        ids, mask = torch.full((4, length), 5), torch.ones(4, length, dtype=torch.int64)
        torch.manual_seed(1)
        training.parallel_model(images, ids, mask).boxes.sum().backward()
        plain.model.zero_grad()
        torch.manual_seed(1)
        plain.model.train()(images, ids, mask).boxes.sum().backward()
        for one, other in zip(training.model.parameters(), plain.model.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None)
            if one.grad is not None and other.grad is not None:
                torch.testing.assert_close(one.grad, other.grad)
    # The second length makes the length a variable.
    assert len(compiled) == 2
    assert list(training.model.state_dict()) == list(plain.model.state_dict())


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, shards: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SettingsError, match=r"needs a C\+\+ compiler, and there is no no-such-compiler; install it"):
        open_small(shards, tmp_path, compile=True)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo g++ 9.9; exit 0", "it ended with status 0"),
        ("echo no space left on device >&2; echo more >&2; exit 1", "no space left on device"),
        ("exit 3", "it ended with status 3"),
    ],
    ids=["a program that does nothing", "one that says why", "one that says nothing"],
)
def test_a_compiler_that_does_not_work_is_named_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, shards: Path, tmp_path: Path, script: str, reason: str
) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(SettingsError) as caught:
        open_small(shards, tmp_path / "run", compile=True)
    assert str(caught.value) == (
        f"compile=true needs a C++ compiler, and {compiler} cannot compile a program of two lines ({reason}); name "
        "another one in the environment variable CXX, or set compile=false (igvg train: with --continue-with, if the "
        "training has begun)"
    )


def test_a_network_that_cannot_be_compiled_ends_in_one_line_and_its_training_goes_on_uncompiled(
    shards: Path, tmp_path: Path
) -> None:
    train(open_small(shards, tmp_path, max_steps=1))

    def fail(*_: Any) -> Any:
        raise ValueError("the compiler is killed\nbecause of this\nand that")

    training = open_small(shards, tmp_path, max_steps=3)
    training.parallel_model = compile_model(training.model, torch.device("cpu"), backend=fail)
    with pytest.raises(
        SettingsError, match=r"the network cannot be compiled \(the compiler is killed\); repair that .*$"
    ):
        train(training)
    state = read_state(tmp_path / "state")
    assert state is not None
    assert state["step"] == 1
    again = open_small(shards, tmp_path, max_steps=3)
    assert again.step == 1
    train(again)
    assert again.step == 3
