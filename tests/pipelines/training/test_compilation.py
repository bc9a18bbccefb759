"""A compiled network computes what the network does; compilers that are missing or broken are named in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.training.compilation import compile_model
from pipelines.training.state_files import read_state
from pipelines.training.trainer import open_batches, train, train_step
from shards.errors import SettingsError
from tests.support.small_training import MODEL, open_small, write_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("compilation"))


def test_a_training_compiles_its_network_once_and_has_the_losses_and_names_of_one_that_does_not(tmp_path: Path) -> None:
    compiled: list[torch.fx.GraphModule] = []

    def count(module: torch.fx.GraphModule, _: Any) -> Any:
        compiled.append(module)
        return module.forward

    # Texts of several lengths; dropout would draw numbers for other shapes.
    shards = write_set(tmp_path)
    words = {"model": replace(MODEL, drop_path=0.0, dropout=0.0), "max_steps": 4}
    plain, training = (open_small(shards, tmp_path / name, **words) for name in ("plain", "compiled"))
    training.settings = replace(training.settings, compile=True)
    training.parallel_model = compile_model(training.model, torch.device("cpu"), backend=count)
    for length, batch in enumerate(open_batches(plain), start=4):
        padded = batch.pad_texts(length, pad_id=1)
        expected, found = train_step(plain, padded).losses, train_step(training, padded).losses
        for name, loss in expected.items():
            torch.testing.assert_close(found[name], loss)
    assert len(compiled) == 1
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
