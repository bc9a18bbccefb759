"""The files of saved states: how many are kept, and which is taken where the last one is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.training.state import save_state
from pipelines.training.state_files import find_state, read_state, write_state
from shards.errors import CheckpointError
from shards.progress import set_sink
from tests.support.small_training import open_small, write_set


def write_steps(folder: Path, count: int, keep: int) -> None:
    for step in range(1, count + 1):
        write_state(folder, {"step": step, "weights": torch.full((1000,), float(step))}, keep=keep)


def read_steps(folder: Path) -> dict[str, int]:
    return {file.name: torch.load(file, weights_only=True)["step"] for file in sorted(folder.iterdir())}


def flip_bit(file: Path) -> None:
    """In the middle of the weights, where torch does not notice it."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1500])


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (1, {"state.pt": 5}),
        (2, {"state-1.pt": 4, "state.pt": 5}),
        (3, {"state-1.pt": 4, "state-2.pt": 3, "state.pt": 5}),
    ],
)
def test_as_many_of_the_last_states_are_kept_as_are_set(tmp_path: Path, keep: int, kept: dict[str, int]) -> None:
    write_steps(tmp_path, 5, keep)
    assert read_steps(tmp_path) == kept
    write_state(tmp_path, {"step": 6})
    assert read_steps(tmp_path) == {"state.pt": 6}


@pytest.mark.parametrize("keep", [1, 2])
def test_the_only_state_is_never_removed_before_the_next_one_is_complete(tmp_path: Path, keep: int) -> None:
    write_steps(tmp_path, 2, keep=2)
    (tmp_path / "state.pt").unlink()
    with pytest.raises(TypeError):
        write_state(tmp_path, {"step": 3, "weights": (each for each in ())}, keep=keep)
    assert read_steps(tmp_path) == {"state-1.pt": 1}


@pytest.mark.parametrize("damage", [flip_bit, cut, Path.unlink])
def test_where_the_last_state_is_damaged_or_lost_the_one_before_is_taken(tmp_path: Path, damage: object) -> None:
    write_steps(tmp_path, 3, keep=3)
    damage(tmp_path / "state.pt")  # type: ignore[operator]
    found = find_state(tmp_path)
    assert found is not None
    assert (found.file.name, found.values["step"]) == ("state-1.pt", 2)
    assert [file.name for file in found.damaged] == ([] if damage is Path.unlink else ["state.pt"])


@pytest.mark.parametrize("damage", [flip_bit, cut])
def test_without_a_sound_state_the_last_one_is_named_with_what_to_do(tmp_path: Path, damage: object) -> None:
    write_steps(tmp_path, 2, keep=2)
    for name in ("state.pt", "state-1.pt"):
        damage(tmp_path / name)  # type: ignore[operator]
    with pytest.raises(
        CheckpointError, match=r"/state\.pt.*; delete it, and the same command begins the training again"
    ):
        read_state(tmp_path)


def test_a_training_says_which_state_was_damaged_removes_it_and_continues_from_the_one_before(tmp_path: Path) -> None:
    shards = write_set(tmp_path / "set")
    training = open_small(shards, tmp_path / "run", max_steps=3)
    for training.step in (1, 2):
        save_state(training)
    flip_bit(tmp_path / "run" / "state" / "state.pt")
    lines: list[str] = []
    with set_sink(log=lines.append):
        assert open_small(shards, tmp_path / "run", max_steps=3).step == 1
    assert [line for line in lines if "damaged" in line] == [
        f"{tmp_path}/run/state/state.pt is damaged and removed; the training continues from step 1, saved before it"
    ]
    assert [file.name for file in (tmp_path / "run" / "state").iterdir()] == ["state-1.pt"]
    save_state(training)
    assert [file.name for file in sorted((tmp_path / "run" / "state").iterdir())] == ["state-1.pt", "state.pt"]
