"""Files of torch.save are read as tensors and plain values, and run no code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.model.convert.torch_file import check_tensor, load_values
from shards.errors import CheckpointError


class Touch:
    """Unpickles into a call that leaves a file behind."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.file,)


def test_tensors_and_plain_values_come_back(tmp_path: Path) -> None:
    torch.save({"weight": torch.arange(3.0), "epoch": 7, "names": ["a"]}, tmp_path / "file.pth")
    found = load_values(tmp_path / "file.pth", "copy it again")
    assert torch.equal(found["weight"], torch.arange(3.0))
    assert (found["epoch"], found["names"]) == (7, ["a"])


def test_a_number_of_numpy_does_not_keep_a_file_from_being_read(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2), "best": np.float64(0.5)}, tmp_path / "file.pth")
    assert torch.equal(load_values(tmp_path / "file.pth", "copy it again")["weight"], torch.ones(2))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": Touch(tmp_path / "trace")}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"file\.pth: .*igvg runs no code from checkpoints"):
        load_values(tmp_path / "file.pth", "copy it again")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.ones(2, dtype=torch.complex64), "no plain tensor of numbers"),
        (torch.eye(3).to_sparse(), "no plain tensor of numbers"),
        (torch.ones(1).expand(5), "larger than what is stored of it"),
    ],
    ids=["complex", "sparse", "expanded"],
)
def test_tensors_that_copy_to_more_than_they_hold_are_refused(tensor: torch.Tensor, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        check_tensor("weight", tensor, Path("file.pth"))


def test_a_view_into_stored_values_is_a_plain_tensor() -> None:
    tensor = torch.arange(6.0).reshape(2, 3).T
    assert check_tensor("weight", tensor, Path("file.pth")) is tensor
