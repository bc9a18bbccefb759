"""`igvg train`: recipes by name, and the settings that it would train with."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pipelines.config.recipes import RECIPES
from tests.support.pipeline_runs import igvg, only_error


def show(*words: str | Path) -> str:
    result = igvg("train", *words, "--show-settings")
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_settings_are_shown_as_toml_that_config_reads_back_and_nothing_is_made(tmp_path: Path) -> None:
    words = ("--preset", "tiny", "--recipe", "refcoco", "--set", "epochs=7", "--init", "start.pth")
    shown = show(*words, "--out", tmp_path / "out")
    values = tomllib.loads(shown)
    assert (values["epochs"], values["init"], values["model"]["num_queries"]) == (7, "start.pth", 1)
    (tmp_path / "shown.toml").write_text(shown)
    assert show("--config", tmp_path / "shown.toml") == shown
    assert [file.name for file in tmp_path.iterdir()] == ["shown.toml"]


def test_sets_to_compare_with_are_added_to_those_of_the_settings() -> None:
    words = ("--set", 'held_out=["a"]', "--held-out", "b", "--held-out", "s3://c/d")
    assert tomllib.loads(show(*words))["held_out"] == ["a", "b", "s3://c/d"]


def test_wrong_settings_are_not_shown() -> None:
    assert "did you mean epochs" in only_error(igvg("train", "--set", "epocs=1", "--show-settings"))
    assert "no recipe refcco; did you mean refcoco?" in only_error(
        igvg("train", "--recipe", "refcco", "--show-settings")
    )


@pytest.mark.parametrize("words", [[], ["--shards", "x"], ["--out", "x"]])
def test_shards_and_a_folder_are_missed_where_there_is_a_training(words: list[str]) -> None:
    result = igvg("train", *words)
    assert result.returncode == 2
    assert "is missing" in result.stderr


@pytest.mark.parametrize("command", ["train", "ablate"])
def test_the_help_names_every_recipe(command: str) -> None:
    text = " ".join(igvg(command, "--help").stdout.replace("│", " ").split())
    assert all(name in text for name in RECIPES)
