"""The grid of a sweep, from words, a file, or a table of the paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config.settings import PostprocessSettings
from pipelines.evaluation.sweep_grid import build_grid, product_grid
from shards.errors import SettingsError

BASE = PostprocessSettings(score_threshold=0.45)


def test_words_span_all_combinations_with_the_last_axis_fastest():
    grid = build_grid(BASE, "", ["score_threshold=0.5,0.7", "mask_source=global,merge"])
    assert grid.varied == ("score_threshold", "mask_source")
    assert [(setting.score_threshold, setting.mask_source) for setting in grid.settings] == [
        (0.5, "global"), (0.5, "merge"), (0.7, "global"), (0.7, "merge"),
    ]  # fmt: skip


def test_what_is_not_varied_keeps_its_value():
    assert {setting.score_threshold for setting in build_grid(BASE, "", ["nms=true,false"]).settings} == {0.45}


def test_a_value_given_twice_counts_once():
    assert len(build_grid(BASE, "", ["nms_iou=0.5,0.5,0.7"]).settings) == 2


def test_a_file_and_words_span_a_grid_together(tmp_path: Path):
    (tmp_path / "grid.toml").write_text('mask_source = ["global", "instance"]\nnms = true\n')
    grid = build_grid(BASE, str(tmp_path / "grid.toml"), ["mask_threshold=0.3,0.5,0.7"])
    assert grid.varied == ("mask_source", "nms", "mask_threshold")
    assert len(grid.settings) == 6
    assert all(setting.nms for setting in grid.settings)


def test_table_11_changes_where_the_mask_comes_from():
    grid = build_grid(BASE, "table-11", [])
    assert [setting.mask_source for setting in grid.settings] == ["global", "instance", "merge"]
    assert grid.metrics == ("gIoU", "cIoU")


def test_table_12_adds_weighting_then_suppression():
    grid = build_grid(BASE, "table-12", [])
    assert [(setting.existence_weighting, setting.nms) for setting in grid.settings] == [
        (False, False), (True, False), (True, True),
    ]  # fmt: skip
    assert grid.metrics == ("F1score", "gIoU", "cIoU")


@pytest.mark.parametrize(
    ("name", "axes", "words"),
    [
        ("", [], "nothing to sweep; --vary one of score_threshold, .*--grid table-11 or table-12"),
        ("table-13", [], "no grid 'table-13'; there are table-11, table-12, or give a TOML file"),
        ("table-11", ["nms=true"], "table-11 is a whole grid"),
        ("", ["score_treshold=0.5"], "no setting score_treshold of post-processing; did you mean score_threshold"),
        ("", ["score_threshold"], "--vary score_threshold: write it as KEY=VALUE,VALUE"),
        ("", ["score_threshold="], "write it as KEY=VALUE,VALUE"),
        ("", ["score_threshold=1.5"], "score_threshold = 1.5"),
        ("", ["mask_source=both"], "mask_source = 'both'"),
        ("", ["nms=perhaps"], "nms = 'perhaps'"),
        ("", ["nms=true", "nms=false"], "--vary nms=false: nms is varied twice"),
        ("", ["score_threshold=true"], "score_threshold = True"),
        ("", ["nms=yes"], "nms = 'yes'"),
        ("", ["nms=1"], "nms = 1"),
        ("", ["score_threshold=[0.5],[0.7]"], "score_threshold = .0.5."),
        ("", ["score_threshold={a=1}"], "score_threshold"),
        ("", ["score_threshold=" + "9" * 5000], "score_threshold"),
        ("missing.toml", [], "missing.toml: no such file"),
    ],
)
def test_what_cannot_be_is_named_with_what_would_do(name, axes, words):
    with pytest.raises(SettingsError, match=words):
        build_grid(BASE, name, axes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("score_threshold = [[0.5]]", "score_threshold"),
        ("[score_threshold]\na = 1", "score_threshold"),
        ("nms_iou = " + "9" * 5000, "not settings in TOML|nms_iou"),
        ("nms_iou = " + "[" * 3000, "not settings in TOML"),
        ("nms = \xff", "not settings in TOML"),
    ],
)
def test_nonsense_in_a_file_is_an_error(tmp_path: Path, text: str, words: str):
    (tmp_path / "grid.toml").write_text(text, encoding="latin-1")
    with pytest.raises(SettingsError, match=words):
        build_grid(BASE, str(tmp_path / "grid.toml"), [])


def test_a_varied_file_and_word_may_not_name_the_same_setting(tmp_path: Path):
    (tmp_path / "grid.toml").write_text("nms = true\n")
    with pytest.raises(SettingsError, match="nms is varied twice"):
        build_grid(BASE, str(tmp_path / "grid.toml"), ["nms=false"])


def test_a_file_with_an_empty_list_has_nothing_to_sweep(tmp_path: Path):
    (tmp_path / "grid.toml").write_text("nms_iou = []\n")
    with pytest.raises(SettingsError, match="nothing to sweep"):
        build_grid(BASE, str(tmp_path / "grid.toml"), [])


def test_a_grid_that_would_never_end_is_refused():
    axes = {"score_threshold": [n / 300 for n in range(300)], "mask_threshold": [n / 300 for n in range(300)]}
    with pytest.raises(SettingsError, match="90,000 settings; a sweep takes 10,000 at most"):
        product_grid(BASE, axes)
