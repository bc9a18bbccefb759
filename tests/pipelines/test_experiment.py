"""Experiment files: what they may say, and what a wrong one is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipelines.experiment import read_experiment
from pipelines.settings import SettingsError, train_preset

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.experiment import Experiment

TEXT = """
[prepare.first]
dataset = "grefcoco"
annotations = "a"
images = ["b", "c"]

[prepare.ref-zom]
annotations = "d"
images = "b"

[train]
preset = "tiny"
epochs = 3
optimizer.head_lr = 2e-3

[predict]
splits = ["first/val", "ref-zom/test"]
"""


def read(folder: Path, text: str = TEXT) -> Experiment:
    file = folder / "mine.toml"
    file.write_text(text)
    return read_experiment(file)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    experiment = read(tmp_path)
    assert experiment.out == tmp_path / "runs" / "mine"
    assert experiment.prepare["first"].annotations == tmp_path / "a"
    assert experiment.prepare["first"].images == (tmp_path / "b", tmp_path / "c")
    assert experiment.prepare["ref-zom"].images == (tmp_path / "b",)


def test_a_table_s_name_is_its_data_set_unless_it_names_one(tmp_path: Path) -> None:
    experiment = read(tmp_path)
    assert [step.settings.dataset for step in experiment.prepare.values()] == ["grefcoco", "ref-zom"]


def test_training_starts_from_its_preset(tmp_path: Path) -> None:
    train, preset = read(tmp_path).train, train_preset("tiny")
    assert (train.epochs, train.optimizer.head_lr) == (3, 2e-3)
    assert (train.model, train.optimizer.encoder_lr) == (preset.model, preset.optimizer.encoder_lr)


def test_all_prepared_sets_are_trained_on_unless_some_are_chosen(tmp_path: Path) -> None:
    assert read(tmp_path).train_on == ("first", "ref-zom")
    chosen = TEXT.replace("epochs = 3", 'shards = ["ref-zom"]')
    assert read(tmp_path, chosen).train_on == ("ref-zom",)


def test_splits_are_pairs_of_name_and_split(tmp_path: Path) -> None:
    assert read(tmp_path).predict_on == (("first", "val"), ("ref-zom", "test"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[train]", "[trian]", "did you mean train?"),
        ("epochs", "epoch", "epochs"),
        ("optimizer.head_lr", "optimizer.hed_lr", "head_lr"),
        ("first/val", "second/val", "second is not prepared; there are first, ref-zom"),
        ('"first/val"', '"val"', "write name/split"),
        ('annotations = "a"', "", "prepare.first has no annotations"),
        ("epochs = 3", "epochs = ", "mine.toml"),
    ],
)
def test_a_wrong_file_is_answered_with_what_would_be_right(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, TEXT.replace(old, new))
    assert words in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        read_experiment(tmp_path / "nowhere.toml")
