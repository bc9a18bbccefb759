"""One, two and three processes see the same examples, each once per epoch, also of mixed sets and after a stop."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pytest

from shards.block_shuffle import ShardBlocks
from shards.mixing import Mixture
from tests.support.launched_processes import torchrun
from tests.support.overlapping_sets import write_images

# 13 and 6 expressions: batches of 6 end inside of epochs.
SETTINGS = ("batch_size=6", "epochs=4", 'splits=["train"]', 'validation_split="none"')


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("sets")
    one = write_images(
        home / "grefcoco",
        "train",
        {n: n for n in range(1, 14)},
        coco=False,
        texts=[("left", (0,))],
        records_per_shard=3,
    )
    two = write_images(
        home / "refcoco",
        "train",
        {n: 100 + n for n in range(1, 7)},
        coco=False,
        texts=[("box", (1,))],
        records_per_shard=3,
    )
    return [one, two]


def list_steps(
    sets: list[Path], out: Path, *changes: str, processes: int, first: int = 0, workers: int = 0
) -> list[list[list[str]]]:
    """The ids of each step and process."""
    settings = json.dumps([*SETTINGS, f"workers={workers}", *changes])
    words = ["tests.support.seen_examples", str(out), settings, str(first), *map(str, sets)]
    result = torchrun("-m", *words, processes=processes)
    assert result.returncode == 0, result.stderr
    if not first:
        record = json.loads((out / "run" / "artifact.json").read_text())
        assert record["counts"]["processes"] == processes
    steps: list[list[list[str]]] = json.loads((out / "seen.json").read_text())
    assert {len(step) for step in steps} == {processes}
    return steps


def take_turns(step: list[list[str]]) -> list[str]:
    """The ids of a step in the order of one process."""
    return [id_ for turn in zip(*step, strict=True) for id_ in turn]


def test_processes_share_epochs_and_resume_what_others_began(sets: list[Path], tmp_path: Path) -> None:
    one, two, three = (
        list_steps(sets, tmp_path / str(processes), processes=processes, workers=processes - 1)
        for processes in (1, 2, 3)
    )
    steps = [take_turns(step) for step in one]
    assert [take_turns(step) for step in two] == [take_turns(step) for step in three] == steps
    seen = list(chain(*steps))
    assert len(seen) == 78
    epochs = [seen[start : start + 19] for start in range(0, 76, 19)]
    assert all(len(set(epoch)) == 19 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    later = list_steps(sets, tmp_path / "later", processes=1, first=5)
    assert [take_turns(step) for step in later] == steps[5:]


def test_processes_share_blocks_of_shards_and_resume_what_others_began(sets: list[Path], tmp_path: Path) -> None:
    shuffled = "shuffle_block_shards=2"
    seen = list_steps(sets, tmp_path / "out", shuffled, processes=3, workers=1)
    blocks = ShardBlocks(shard_sizes=(3, 3, 3, 3, 1, 3, 3), block_shards=2)
    indices = blocks.sample(seed=6666, start=0, count=78).tolist()
    ids = [f"grefcoco/{index + 1}/0" if index < 13 else f"refcoco/{index - 12}/0" for index in indices]
    assert [id_ for step in seen for id_ in take_turns(step)] == ids
    later = list_steps(sets, tmp_path / "later", shuffled, processes=2, first=5)
    assert [take_turns(step) for step in later] == [take_turns(step) for step in seen[5:]]


def test_processes_share_a_mixture(sets: list[Path], tmp_path: Path) -> None:
    steps = list_steps(sets, tmp_path / "out", "ratios=[2, 1]", "seed=5", processes=2)
    seen = list(chain(*map(take_turns, steps)))
    indices = Mixture(sizes=(13, 6), weights=(2, 1)).sample(seed=5, start=0, count=78).tolist()
    assert seen == [f"grefcoco/{index + 1}/0" if index < 13 else f"refcoco/{index - 12}/0" for index in indices]
