"""A training on sets in stated ratios: its record, its order, and how it goes on after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from pipelines.config.settings import TrainSettings
from pipelines.stages import train
from pipelines.training.setup import Training, setup_training
from pipelines.training.trainer import open_batches
from shards.block_shuffle import ShardBlocks
from shards.errors import ArtifactError, DataError, SettingsError
from shards.mixing import Mixture
from shards.progress import set_sink
from tests.support.drawn_shards import write_noise, write_shards
from tests.support.overlapping_sets import write_images
from tests.support.small_training import small_settings


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve expressions, and eight."""
    home = tmp_path_factory.mktemp("mixed")
    return [write_noise(home / "first", 3), write_noise(home / "second", 2)]


def choose(**changes: Any) -> TrainSettings:
    return small_settings(**{"ratios": (3.0, 1.0), "max_steps": 7, "epochs": 5, "checkpoint_minutes": 0.0} | changes)


def open_mixed(sets: list[Path], out: Path, **changes: Any) -> Training:
    torch.manual_seed(0)
    return setup_training(choose(**changes), sets, out, Accelerator(cpu=True))


def read_losses(folder: Path) -> list[Any]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["losses"] for line in lines if "losses" in line]


def test_every_batch_of_four_holds_three_of_the_first_set_and_one_of_the_second(
    sets: list[Path], tmp_path: Path
) -> None:
    training = open_mixed(sets, tmp_path / "out")
    steps = np.array([training.sample_step(step) for step in range(8)])
    assert ((steps < 12).sum(axis=1) == 3).all()
    assert sorted(steps[steps >= 12]) == list(range(12, 20))
    assert sorted(steps[:4][steps[:4] < 12]) == list(range(12))


def test_the_splits_of_a_folder_are_one_set(sets: list[Path], tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    for split, source in (("train", sets[0]), ("val", sets[1])):
        index = json.loads((source / "val" / "index.json").read_text())
        (tmp_path / "both" / split).mkdir()
        for shard in index["shards"]:
            (tmp_path / "both" / split / shard["name"]).write_bytes((source / "val" / shard["name"]).read_bytes())
        (tmp_path / "both" / split / "index.json").write_text(json.dumps(index | {"split": split}))
    training = open_mixed([tmp_path / "both", sets[1]], tmp_path / "out", splits=("train", "val"))
    assert training.mixture is not None
    assert training.mixture.sizes == (20, 8)


def test_without_ratios_nothing_is_mixed(sets: list[Path], tmp_path: Path) -> None:
    training = open_mixed(sets, tmp_path / "out", ratios=())
    assert training.mixture is None
    assert sorted(index for step in range(5) for index in training.sample_step(step)) == list(range(20))


def test_a_stopped_training_on_a_mixture_ends_as_an_undisturbed_one_and_records_the_mixture(
    sets: list[Path], tmp_path: Path
) -> None:
    train.run(choose(), sets, tmp_path / "one")

    def stop(done: int, total: int, remark: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), set_sink(progress=stop):
        train.run(choose(), sets, tmp_path / "two")
    train.run(choose(), sets, tmp_path / "two")
    assert read_losses(tmp_path / "one") == read_losses(tmp_path / "two")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    record = json.loads((tmp_path / "two" / "artifact.json").read_text())
    assert record["options"]["ratios"] == [3.0, 1.0]
    assert record["counts"]["mixture"] == [
        {"ratio": 3.0, "expressions": 12, "examples": 21, "passes": 1.75},
        {"ratio": 1.0, "expressions": 8, "examples": 7, "passes": 0.875},
    ]
    with pytest.raises(ArtifactError, match=r"ratios \[3.0, 1.0\] → \[1.0, 1.0\]"):
        train.run(choose(ratios=(1.0, 1.0)), sets, tmp_path / "two")


def test_ratios_for_other_folders_end_before_anything_is_made(sets: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="give one for each folder"):
        train.run(choose(ratios=(1.0,)), sets, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_expressions_cannot_be_mixed(sets: list[Path], tmp_path: Path) -> None:
    empty = write_shards(tmp_path / "empty", references=())
    with pytest.raises(DataError, match=f"{empty}: holds no expressions to train on; leave it out"):
        open_mixed([sets[0], empty], tmp_path / "out")


def test_a_set_that_is_given_twice_is_refused_before_anything_is_made(sets: list[Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(sets[0])
    with pytest.raises(SettingsError, match="are the same folder; give it once, with one ratio"):
        train.run(choose(), [sets[0], tmp_path / "link"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mixture_in_blocks_without_held_out_images_is_the_pure_order_of_what_is_left(tmp_path: Path) -> None:
    folders = [tmp_path / "grefcoco", tmp_path / "refcoco"]
    write_images(folders[0], "train", {n: 10 * n for n in range(1, 14)}, texts=[("left", (0,))], records_per_shard=3)
    write_images(folders[1], "train", {n: 10 * n - 265 for n in range(41, 48)}, records_per_shard=2)
    write_images(tmp_path / "held", "val", {2: 212, 4: 215, 5: 218, 6: 221, 42: 224, 43: 227, 44: 230})
    ids = [f"grefcoco/{n}/0" for n in (1, 3, *range(7, 14))] + [
        f"refcoco/{n}/{k}" for n in (41, 45, 46, 47) for k in "01"
    ]
    sizes = ((2, 0, 3, 3, 1), (2, 0, 4, 2))
    blocks = tuple(ShardBlocks(shard_sizes=each, block_shards=2, stream=set_) for set_, each in enumerate(sizes))
    mixture = Mixture(sizes=(9, 8), weights=(3, 1), blocks=blocks)
    changes: dict[str, Any] = {
        "splits": ("train",), "held_out": (str(tmp_path / "held"),), "exclude_held_out": True,
        "shuffle_block_shards": 2, "max_steps": 9, "epochs": 99,
    }  # fmt: skip
    training = open_mixed(folders, tmp_path / "out", **changes)
    batch = training.settings.batch_size
    indices = mixture.sample(seed=training.settings.seed, start=0, count=9 * batch)
    for first in (0, 5):
        training.step = first
        seen = [id_ for each in open_batches(training) for id_ in each.ids]
        assert seen == [ids[index] for index in indices[first * batch :]]
