"""Split states: folders that the states name are kept, and a state whose parts are damaged is passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.training.archive import save_values
from pipelines.training.sharded_state import join_parts
from pipelines.training.state_files import find_state, read_state, write_state
from shards.errors import CheckpointError
from tests.support.small_training import open_small, write_set

WEIGHT = ("model", "layer.weight")


def write_sharded(folder: Path, step: int, parts: list[dict[Any, Any]], keep: int = 1) -> None:
    """As processes that hold a slice each write a state."""
    write_parts(folder / f"sharded-{step}", parts)
    write_state(folder, {"step": step, "model": {}, "sharded": [f"sharded-{step}", len(parts)]}, keep=keep)


def write_parts(folder: Path, parts: list[dict[Any, Any]]) -> None:
    folder.mkdir(parents=True)
    for rank, shards in enumerate(parts):
        save_values(shards, folder / f"rank-{rank}-of-{len(parts)}.pt")


def draw_parts(step: int) -> list[dict[Any, Any]]:
    """Five rows for three processes: the last one has none."""
    rows = torch.arange(10.0).reshape(5, 2) + step
    return [{WEIGHT: part} for part in (rows[:3], rows[3:], rows[5:])]


def list_names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_whole_tensor_is_what_the_processes_held_one_after_the_other(tmp_path: Path) -> None:
    write_sharded(tmp_path, 1, draw_parts(1))
    state = read_state(tmp_path)
    assert state is not None
    tensor = state["model"]["layer.weight"]
    assert tensor.shape == (5, 2)
    assert torch.equal(join_parts(tensor), torch.arange(10.0).reshape(5, 2) + 1)
    assert state.keys() == {"step", "model"}


def test_folders_that_no_state_names_are_removed_with_the_next_state(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_sharded(tmp_path, step, draw_parts(step), keep=2)
    assert list_names(tmp_path) == ["sharded-2", "sharded-3", "state-1.pt", "state.pt"]
    # Processes that are killed while they write leave parts of a state.
    write_parts(tmp_path / "sharded-4", draw_parts(4)[:1])
    found = find_state(tmp_path)
    assert found is not None
    assert found.values["step"] == 3
    write_sharded(tmp_path, 5, draw_parts(5), keep=2)
    assert list_names(tmp_path) == ["sharded-3", "sharded-5", "state-1.pt", "state.pt"]
    write_state(tmp_path, {"step": 6})
    assert list_names(tmp_path) == ["state.pt"]


def flip_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[content.index(torch.tensor(11.0).numpy().tobytes())] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [flip_bit, Path.unlink, lambda file: file.write_bytes(b"")])
def test_a_state_of_which_a_part_is_damaged_or_lost_is_passed_over(tmp_path: Path, damage: Any) -> None:
    for step in (1, 2):
        write_sharded(tmp_path, step, draw_parts(step), keep=2)
    damage(tmp_path / "sharded-2" / "rank-1-of-3.pt")
    found = find_state(tmp_path)
    assert found is not None
    assert (found.values["step"], [file.name for file in found.damaged]) == (1, ["state.pt"])
    (tmp_path / "state-1.pt").unlink()
    with pytest.raises(CheckpointError, match=rf"rank-1-of-3.pt.*; delete {tmp_path}/state.pt, and the same command"):
        find_state(tmp_path)


@pytest.mark.parametrize(
    ("index", "part"),
    [
        (1, {}),
        (1, {WEIGHT: "no tensor"}),
        (1, {WEIGHT: torch.zeros(2, 3)}),
        (1, {WEIGHT: torch.zeros(2, 2, dtype=torch.float64)}),
        (1, {WEIGHT: torch.zeros(())}),
        (1, {WEIGHT: torch.zeros(1).expand(10_000_000, 2)}),
        (1, ["no dictionary"]),
        (1, {(): torch.zeros(2, 2)}),
        (0, {("model", "other", "weight"): torch.zeros(3, 2)}),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path, index: int, part: Any) -> None:
    parts = draw_parts(1)
    parts[index] = part
    write_sharded(tmp_path, 1, parts)
    with pytest.raises(CheckpointError, match=r"/sharded-1.* (does not fit|is no part|is larger)"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    "reference", [["../other", 2], ["sharded-1", 0], ["sharded-1"], "sharded-1", ["sharded-1", "2"]]
)
def test_a_state_names_a_folder_beside_it_alone(tmp_path: Path, reference: Any) -> None:
    write_state(tmp_path, {"step": 1, "sharded": reference})
    with pytest.raises(CheckpointError, match="is no state of a training: sharded is"):
        read_state(tmp_path)


def test_parts_of_another_network_are_refused(tmp_path: Path) -> None:
    shards = write_set(tmp_path / "set")
    write_sharded(tmp_path / "run" / "state", 1, draw_parts(1))
    with pytest.raises(CheckpointError, match=r"state\.pt is no state of this training"):
        open_small(shards, tmp_path / "run")
