"""`--shards FOLDER:RATIO`: a number behind the last colon is a ratio, and no other colon is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.config.overrides import fingerprinted_settings, read_settings
from pipelines.config.presets import train_preset
from pipelines.config.ratios import check_distinct, check_ratios, split_ratio, take_ratios
from shards.errors import SettingsError
from shards.remote_folders import locate_shards

SETTINGS = train_preset("tiny")


@pytest.mark.parametrize(
    ("text", "folder", "ratio"),
    [
        ("data/a:2", "data/a", 2.0),
        ("data/a:0.5", "data/a", 0.5),
        ("a:1:2", "a:1", 2.0),
        ("data/a", "data/a", None),
        ("data/a:b", "data/a:b", None),
        ("data/a:", "data/a:", None),
        ("data/a:-1", "data/a:-1", None),
        ("data/a:1e3", "data/a:1e3", None),
        (":2", ":2", None),
        (r"C:\data", r"C:\data", None),
        (r"C:\data:3", r"C:\data", 3.0),
        ("s3://bucket/data", "s3://bucket/data", None),
        ("s3://bucket/data:3", "s3://bucket/data", 3.0),
        ("http://host:8000", "http://host:8000", None),
        ("http://host:8000/data", "http://host:8000/data", None),
        ("http://host:8000/data:3", "http://host:8000/data", 3.0),
        ("hf://datasets/user/repo@v1:2", "hf://datasets/user/repo@v1", 2.0),
    ],
)
def test_only_a_number_behind_the_last_colon_of_a_path_is_a_ratio(text: str, folder: str, ratio: float | None) -> None:
    assert split_ratio(text) == (folder, ratio)


def test_a_folder_whose_name_ends_like_a_ratio_is_that_folder(tmp_path: Path) -> None:
    (tmp_path / "data:2").mkdir()
    assert split_ratio(f"{tmp_path}/data:2") == (f"{tmp_path}/data:2", None)
    assert split_ratio(f"{tmp_path}/data:2:3") == (f"{tmp_path}/data:2", 3.0)


def test_folders_without_ratios_leave_the_settings_alone() -> None:
    assert take_ratios(["a", "b"], SETTINGS) == (["a", "b"], SETTINGS)


def test_a_folder_without_a_ratio_beside_one_with_a_ratio_has_1() -> None:
    assert take_ratios(["a:2", "b"], SETTINGS) == (["a", "b"], replace(SETTINGS, ratios=(2.0, 1.0)))


def test_ratios_are_a_setting(tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text("ratios = [2, 0.5]\n")
    settings = read_settings(SETTINGS, tmp_path / "train.toml")
    assert settings.ratios == (2.0, 0.5)
    assert take_ratios(["a", "b"], settings) == (["a", "b"], settings)
    assert take_ratios(["a:2", "b:0.5"], settings) == (["a", "b"], settings)
    with pytest.raises(SettingsError, match=r"ratios \[2, 1\], the settings \[2, 0.5\]; leave out either"):
        take_ratios(["a:2", "b:1"], settings)


@pytest.mark.parametrize("value", ["[0]", "[-1]", "[inf]", "[nan]", "2", '["x"]'])
def test_ratios_that_are_no_positive_numbers_are_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="ratios"):
        read_settings(SETTINGS, overrides=[f"ratios={value}"])


def test_a_ratio_of_0_is_refused() -> None:
    with pytest.raises(SettingsError, match="--shards b:0: a ratio is a number above 0; leave the folder out"):
        take_ratios(["a:1", "b:0"], SETTINGS)


@pytest.mark.parametrize("digits", [7, 40, 400])
def test_a_ratio_that_is_too_large_is_refused(digits: int) -> None:
    with pytest.raises(SettingsError, match="9: a ratio is a number up to 1,000,000; give smaller ones to all"):
        take_ratios([f"a:{'9' * digits}", "b"], SETTINGS, lambda text: text in ("a", "b"))


@pytest.mark.parametrize("end", ["nan", "-1", "1e3", "inf", "1/3", ""])
def test_a_folder_with_something_else_than_a_ratio_behind_it_is_refused(end: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=rf"--shards .*:{end}: '{end}' is no ratio; give a number above 0, such"):
        take_ratios([f"{tmp_path}:{end}", "b"], SETTINGS)
    (tmp_path / f"c:{end}").mkdir(parents=True)
    assert take_ratios([f"{tmp_path}/c:{end}"], SETTINGS) == ([f"{tmp_path}/c:{end}"], SETTINGS)


def test_there_is_one_ratio_for_each_folder() -> None:
    check_ratios((), [Path("a"), Path("b")])
    check_ratios((1.0, 2.0), [Path("a"), Path("b")])
    with pytest.raises(SettingsError, match=r"ratios = \[1\] are 1, and there are 2 folders of shards"):
        check_ratios((1.0,), [Path("a"), Path("b")])


def test_settings_without_ratios_have_the_fingerprint_that_they_had_before_there_were_any() -> None:
    assert "ratios" not in fingerprinted_settings(SETTINGS)
    assert fingerprinted_settings(replace(SETTINGS, ratios=(2.0, 1.0)))["ratios"] == [2.0, 1.0]


@pytest.mark.parametrize("again", ["data", "./data", "other/../data", "link"])
def test_a_folder_that_is_given_twice_is_refused_under_any_name(
    again: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("data", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("data")
    monkeypatch.chdir(tmp_path)
    check_distinct([Path("data"), Path("other")])
    with pytest.raises(SettingsError, match=r"--shards: .*(given twice|are the same folder); give it once$"):
        check_distinct([Path("data"), Path("other"), Path(again)])
    with pytest.raises(SettingsError, match="give it once, with one ratio"):
        check_distinct([Path("data"), Path(again)], (2.0, 1.0))


@pytest.mark.parametrize(
    "again", ["https://me:secret@host/data/", "https://HOST/data/", "HTTPS://you:secret@host/data"]
)
def test_an_address_that_is_given_twice_is_refused_and_shown_without_its_password(again: str) -> None:
    first = locate_shards("https://me:secret@host/data")
    check_distinct([first, *map(locate_shards, ("https://host/other", "https://host/data?set=2", "http://host/data"))])
    with pytest.raises(SettingsError, match=r"are the same folder|given twice") as error:
        check_distinct([first, locate_shards(again)])
    assert "secret" not in str(error.value)
