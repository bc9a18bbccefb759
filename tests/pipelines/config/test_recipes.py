"""The recipes by name: what the paper and the published checkpoints say, over a preset and under everything else."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pipelines.config.overrides import read_settings, read_toml, to_mapping
from pipelines.config.presets import train_preset
from pipelines.config.recipes import RECIPES, find_recipe
from pipelines.config.settings import TrainSettings
from pipelines.stages import train
from shards.errors import SettingsError
from tests.support.drawn_shards import write_shards
from tests.support.paths import ROOT


def resolve(name: str, *overrides: str, preset: str = "base", file: Path | None = None) -> TrainSettings:
    return read_settings(train_preset(preset), file, overrides, recipe=find_recipe(name))  # type: ignore[arg-type]


def test_there_is_one_for_each_published_training_and_the_ablations() -> None:
    assert RECIPES.keys() == {"grefcoco", "ref-zom", "rrefcoco", "refcoco", "ablation"}


@pytest.mark.parametrize("name", ["grefcoco", "ref-zom", "rrefcoco"])
def test_the_paper_s_recipes_are_the_defaults_of_the_base_preset(tmp_path: Path, name: str) -> None:
    assert resolve(name) == train_preset("base")
    shards = write_shards(tmp_path / "shards")
    named, plain = (train.describe(each, [shards], tmp_path) for each in (resolve(name), train_preset("base")))
    assert named.fingerprint == plain.fingerprint


def test_refcoco_has_one_query_twenty_tokens_and_twenty_epochs() -> None:
    for preset in ("base", "large"):
        settings = resolve("refcoco", preset=preset)
        assert (settings.model.num_queries, settings.text.max_tokens, settings.epochs) == (1, 20, 20)
        assert (settings.optimizer.warmup_epochs, settings.optimizer.decay_epochs) == (3, (15,))
        assert settings.model.encoder_dim == train_preset(preset).model.encoder_dim


def test_the_ablations_differ_from_the_paper_s_training_in_the_size_of_images_alone() -> None:
    assert resolve("ablation") == resolve("grefcoco", "model.image_size=224")
    assert resolve("ablation").model.grid_size == 14


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_over_a_small_preset_changes_the_training_and_not_the_network(name: str) -> None:
    patch = "model.patch_size=16" if name == "ablation" else "seed=1"
    settings, tiny = resolve(name, patch, preset="tiny"), train_preset("tiny")
    assert settings.optimizer.head_lr == 5e-4
    assert settings.postprocess.score_threshold == 0.7
    assert settings.loss.existence == 0.2
    assert settings.model.encoder_dim == tiny.model.encoder_dim


def test_the_file_of_settings_and_the_command_line_win_over_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("epochs = 5\nbatch_size = 8\n")
    settings = resolve("refcoco", "batch_size=4", file=tmp_path / "mine.toml")
    assert (settings.epochs, settings.batch_size, settings.text.max_tokens) == (5, 4, 20)


def test_settings_are_checked_after_the_last_change() -> None:
    with pytest.raises(
        SettingsError, match=r"image_size 224 is not a multiple of patch_size 12; set model\.image_size=216 or 240"
    ):
        resolve("ablation", preset="tiny")
    assert resolve("ablation", "model.image_size=216", preset="tiny").model.image_size == 216


def test_an_unknown_recipe_names_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match=r"no recipe refcoc; did you mean refcoco\?"):
        find_recipe("refcoc")
    with pytest.raises(SettingsError, match="there are ablation, grefcoco, ref-zom, refcoco, rrefcoco"):
        find_recipe("zzz")
    assert find_recipe("") is None


def test_the_recipes_say_the_same_settings_and_none_about_files() -> None:
    def list_keys(values: dict[str, object]) -> set[str]:
        nested = {key: value for key, value in values.items() if isinstance(value, dict)}
        return {key for key in values if key not in nested} | {
            f"{group}.{key}" for group, table in nested.items() for key in table
        }

    keys = {name: list_keys(read_toml(file)) - {"model.image_size"} for name, file in RECIPES.items()}
    assert all(found == keys["grefcoco"] for found in keys.values())
    assert not keys["grefcoco"] & {"preset", "seed", "init", "text.tokenizer", "splits", "workers"}
    assert to_mapping(train_preset("base")).keys() >= {key.partition(".")[0] for key in keys["grefcoco"]}


def test_the_recipes_are_part_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["pipelines"]
    packaged = {file for pattern in patterns for file in (ROOT / "pipelines").glob(pattern)}
    assert set(RECIPES.values()) <= packaged
