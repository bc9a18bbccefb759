"""Settings written as TOML read back as the same settings."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.overrides import overlay_settings, read_settings, to_mapping
from pipelines.config.presets import train_preset
from pipelines.config.recipes import RECIPES
from pipelines.config.settings import LossSettings, OptimizerSettings, TextSettings, TrainSettings
from pipelines.config.toml import format_toml

weights = st.floats(min_value=0, allow_nan=False)
rates = st.floats(min_value=0, exclude_min=True, allow_nan=False)
fractions = st.floats(min_value=0, max_value=1)
trainings = st.builds(
    TrainSettings,
    preset=st.sampled_from(["tiny", "base", "large"]),
    seed=st.integers(min_value=0),
    init=st.text(),
    splits=st.lists(st.text()).map(tuple),
    validation_split=st.text(),
    checkpoint_minutes=weights,
    text=st.builds(TextSettings, tokenizer=st.text(), max_tokens=st.integers(4)),
    loss=st.builds(LossSettings, boxes=weights, existence_balance=st.tuples(weights, weights)),
    optimizer=st.builds(
        OptimizerSettings,
        head_lr=rates,
        eps=rates,
        betas=st.tuples(fractions, fractions),
        amsgrad=st.booleans(),
        decay_epochs=st.lists(st.integers(1, 99)).map(tuple),
    ),
)


@given(trainings)
@settings(deadline=None)
def test_any_settings_come_back(training: TrainSettings) -> None:
    document = tomllib.loads(format_toml(to_mapping(training)))
    assert overlay_settings(TrainSettings(), document, "shown.toml") == training


@pytest.mark.parametrize("recipe", [None, *RECIPES.values()], ids=str)
@pytest.mark.parametrize("preset", ["tiny", "base", "large"])
def test_presets_and_recipes_come_back_over_any_preset(tmp_path: Path, preset: str, recipe: Path | None) -> None:
    changes = ["model.patch_size=16"] if recipe == RECIPES["ablation"] else []
    shown = read_settings(train_preset(preset), overrides=changes, recipe=recipe)  # type: ignore[arg-type]
    (tmp_path / "shown.toml").write_bytes(format_toml(to_mapping(shown)).encode())
    for other in ("tiny", "large"):
        assert read_settings(train_preset(other), tmp_path / "shown.toml") == shown  # type: ignore[arg-type]


def test_awkward_strings_and_numbers_come_back() -> None:
    awkward = 'a"b\\c\n\r\t\x00\x1f\x7f\x85\u2028é𝄞 # [x] = 1'
    training = replace(train_preset("tiny"), init=awkward, checkpoint_minutes=float("inf"), splits=(awkward, ""))
    document = tomllib.loads(format_toml(to_mapping(training)))
    assert document["init"] == awkward
    assert overlay_settings(TrainSettings(), document, "shown.toml") == training


def test_the_values_of_a_table_stand_before_its_tables() -> None:
    text = format_toml({"group": {"inner": {"a": 1}, "b": [True, 1e-9]}, "c": "x"})
    assert text == 'c = "x"\n\n[group]\nb = [true, 1e-09]\n\n[group.inner]\na = 1\n'
