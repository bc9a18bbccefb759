"""Training images in held-out splits: counted and told, and left out where that is set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from pipelines.config.settings import TrainSettings
from pipelines.stages import train
from pipelines.training.leaks import find_leaks
from pipelines.training.setup import Training, setup_training
from shards.errors import ArtifactError, DataError
from shards.progress import set_sink
from tests.support.overlapping_sets import write_images
from tests.support.small_training import small_settings


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Images 9 and 25 of the first training split are in the second val, and 40 of the second is in the first val."""
    home = tmp_path_factory.mktemp("leaks")
    first = write_images(home / "grefcoco", "train", {9: 9, 25: 25, 30: 30, 31: 31})
    write_images(first, "val", {40: 40, 41: 41})
    second = write_images(home / "refcoco", "train", {30: 30, 40: 140})
    write_images(second, "val", {25: 25, 9: 9, 50: 50})
    write_images(second, "testA", {60: 60, 25: 25})
    return [first, second]


def choose(**changes: Any) -> TrainSettings:
    return small_settings(**{"splits": ("train",), "max_steps": 2, "validation_split": "none"} | changes)


def open_training(sets: list[Path], out: Path, **changes: Any) -> Training:
    torch.manual_seed(0)
    return setup_training(choose(**changes), sets, out, Accelerator(cpu=True))


def list_examples(training: Training) -> list[str]:
    return [training.data[index].id for index in range(len(training.data))]


def test_training_images_in_held_out_splits_of_all_sets_are_counted(sets: list[Path]) -> None:
    leaks = find_leaks(sets, [(sets[0], "train"), (sets[1], "train")], ("train",))
    assert [each.tolist() for each in leaks.records] == [[True, True, False, False], [False, True]]
    assert (leaks.images, leaks.expressions) == (3, 6)
    assert leaks.splits == {"grefcoco/val": 1, "refcoco/testA": 1, "refcoco/val": 2}
    alone = find_leaks(sets[:1], [(sets[0], "train")], ("train",))
    assert (alone.images, alone.expressions, alone.splits) == (0, 0, {})


def test_a_split_that_is_trained_on_is_not_held_out(sets: list[Path]) -> None:
    splits = ("train", "val")
    parts = [(folder, split) for folder in sets for split in splits]
    assert find_leaks(sets, parts, splits).splits == {"refcoco/testA": 1}


def test_what_is_left_out_is_no_example_and_no_text_and_the_rest_keeps_its_order(
    sets: list[Path], tmp_path: Path
) -> None:
    whole = open_training(sets, tmp_path / "whole")
    kept = open_training(sets, tmp_path / "kept", exclude_held_out=True)
    left_out = {"grefcoco/9", "grefcoco/25", "refcoco/40"}
    expected = [each for each in list_examples(whole) if each.rpartition("/")[0] not in left_out]
    assert list_examples(kept) == expected
    assert [each for each, _ in kept.data.expressions()] == expected
    assert (len(whole.data), len(kept.data), kept.data.part_sizes) == (12, 6, [4, 2])


def scored_sets_without_what_they_share_are_mixed_by_their_ratios(sets: list[Path], tmp_path: Path) -> None:
    training = open_training(sets, tmp_path / "out", exclude_held_out=True, ratios=(1.0, 3.0))
    assert training.mixture is not None
    assert training.mixture.sizes == (4, 2)


def test_validation_keeps_all_of_its_images(sets: list[Path], tmp_path: Path) -> None:
    changes = {"validation_split": "val", "exclude_held_out": True}
    training = open_training(sets, tmp_path / "out", **changes)
    assert [len(data) for data in training.validation_data.values()] == [4, 6]


def test_a_training_warns_of_leaks_and_records_them(sets: list[Path], tmp_path: Path) -> None:
    lines: list[str] = []
    with set_sink(log=lines.append):
        train.run(choose(), sets, tmp_path / "out")
    (warning,) = [line for line in lines if "held-out" in line]
    assert warning == (
        "Warning: 3 training images (6 expressions) are also in held-out splits: grefcoco/val (1), refcoco/testA (1), "
        "refcoco/val (2); scores there are too high. igvg audit says more; --set exclude_held_out=true leaves them out"
    )
    counts = json.loads((tmp_path / "out" / "artifact.json").read_text())["counts"]
    splits = {"grefcoco/val": 1, "refcoco/testA": 1, "refcoco/val": 2}
    assert counts["held_out"] == {"images": 3, "expressions": 6, "excluded": False, "splits": splits}
    assert counts["expressions"] == 12


def test_a_training_that_leaves_leaks_out_says_how_many(sets: list[Path], tmp_path: Path) -> None:
    lines: list[str] = []
    with set_sink(log=lines.append):
        train.run(choose(exclude_held_out=True), sets, tmp_path / "out")
    (line,) = [line for line in lines if "held-out" in line]
    assert line.startswith("3 training images (6 expressions) are left out: they are also in held-out splits: ")
    record = json.loads((tmp_path / "out" / "artifact.json").read_text())
    assert (record["counts"]["expressions"], record["counts"]["held_out"]["excluded"]) == (6, True)
    assert record["options"]["exclude_held_out"] is True
    with pytest.raises(ArtifactError, match="exclude_held_out True → unset"):
        train.run(choose(), sets, tmp_path / "out")


def test_without_leaks_nothing_is_said_and_the_record_is_as_before(sets: list[Path], tmp_path: Path) -> None:
    lines: list[str] = []
    with set_sink(log=lines.append):
        train.run(choose(), sets[:1], tmp_path / "out")
    assert not [line for line in lines if "held-out" in line]
    record = json.loads((tmp_path / "out" / "artifact.json").read_text())
    assert "held_out" not in record["counts"]
    assert "exclude_held_out" not in record["options"]


@pytest.fixture(scope="module")
def scored_sets(sets: list[Path]) -> list[Path]:
    """Sets that are only scored on: image 9 of the first training split is in one of them, none in the other."""
    home = sets[0].parent
    return [
        write_images(home / "ref-zom", "test", {9: 209, 70: 70}),
        write_images(home / "rrefcoco", "val", {80: 80}),
    ]


def test_a_set_with_held_out_splits_alone_is_compared_and_neither_trained_nor_validated_on(
    sets: list[Path], scored_sets: list[Path], tmp_path: Path
) -> None:
    lines: list[str] = []
    changes = {"held_out": tuple(map(str, scored_sets)), "validation_split": "val", "ratios": (1.0,)}
    with set_sink(log=lines.append):
        train.run(choose(**changes), sets[:1], tmp_path / "out")
    (warning,) = [line for line in lines if "held-out" in line]
    assert warning.startswith(
        "Warning: 1 training images (2 expressions) are also in held-out splits: ref-zom/test (1);"
    )
    record = json.loads((tmp_path / "out" / "artifact.json").read_text())
    assert record["counts"]["held_out"]["splits"] == {"ref-zom/test": 1}
    assert (record["counts"]["expressions"], len(record["counts"]["mixture"])) == (8, 1)
    assert [name for name in record["inputs"] if name != "shards 1"] == ["held out 1", "held out 2"]
    assert "held_out" not in record["options"]
    training = open_training(sets[:1], tmp_path / "kept", exclude_held_out=True, **changes)
    assert (len(training.data), list(training.validation_data)) == (6, sets[:1])


def test_a_training_says_that_no_image_is_in_the_sets_that_it_was_compared_with(
    sets: list[Path], scored_sets: list[Path], tmp_path: Path
) -> None:
    lines: list[str] = []
    with set_sink(log=lines.append):
        train.run(choose(held_out=(str(scored_sets[1]),)), sets[:1], tmp_path / "out")
    assert "No training image is in one of the 2 held-out splits" in lines
    record = json.loads((tmp_path / "out" / "artifact.json").read_text())
    assert record["counts"]["held_out"]["images"] == 0


def test_a_set_without_a_training_split_is_refused_among_those_to_train_on(
    sets: list[Path], scored_sets: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"none of the splits to train on \(train\); .* give it as --held-out if"):
        open_training([sets[0], scored_sets[0]], tmp_path / "out")


def test_a_set_without_a_held_out_split_is_refused_among_those_to_compare_with(
    sets: list[Path], tmp_path: Path
) -> None:
    folder = write_images(tmp_path / "other", "train2", {9: 9})
    for held_out, said in ((folder, r"holds no held-out split \(train2\)"), (tmp_path / "none", "no such folder")):
        with pytest.raises(DataError, match=said):
            open_training(sets, tmp_path / "out", held_out=(str(held_out),))


def test_a_training_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "grefcoco", "train", {9: 9})
    write_images(folder, "val", {9: 9})
    with pytest.raises(DataError, match="all training images are also in held-out splits; leave exclude_held_out off"):
        open_training([folder], tmp_path / "out", exclude_held_out=True)


def test_a_set_of_a_mixture_of_which_nothing_is_left_is_refused_with_what_left_it_out(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "refcoco", "train", {9: 9})
    other = write_images(tmp_path / "grefcoco", "train", {25: 25})
    write_images(other, "val", {9: 9})
    with pytest.raises(DataError, match="no expressions to train on; leave it out, or set exclude_held_out=false"):
        open_training([folder, other], tmp_path / "out", exclude_held_out=True, ratios=(1.0, 1.0))
