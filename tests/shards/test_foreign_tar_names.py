"""Which tars of a folder are taken, the splits that their names tell, and advice about others."""

from __future__ import annotations

import gzip
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from shards.errors import DataError
from shards.foreign_shards import check_members, find_tars, read_records
from shards.indexing import index_shard
from tests.support.foreign_tars import make_info, make_pair, write_tar


def test_splits_are_folders_or_the_beginnings_of_names(tmp_path: Path) -> None:
    for name in (
        "flat/train-000000.tar",
        "flat/train-000001.tar",
        "flat/test-b-0.tar",
        "deep/val/x.tar",
        "deep/.x/y.tar",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "none").mkdir()
    flat = {split: [file.name for file in files] for split, files in find_tars(tmp_path / "flat").items()}
    assert flat == {"test-b": ["test-b-0.tar"], "train": ["train-000000.tar", "train-000001.tar"]}
    assert list(find_tars(tmp_path / "deep")) == ["val"]
    for name in ("none", "missing", "pipe:cat x"):
        with pytest.raises(DataError):
            find_tars(tmp_path / name)


def test_a_name_without_a_number_is_the_split_itself(tmp_path: Path) -> None:
    for name in ("set-train.tar", "set-val.tar", "test.tar"):
        (tmp_path / name).touch()
    assert list(find_tars(tmp_path)) == ["set-train", "set-val", "test"]


@pytest.mark.parametrize("name", ["000000.tar", "a/x.tar"])
def test_splits_that_the_names_do_not_tell_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for each in ("val-000000.tar", name):
        (tmp_path / each).touch()
    with pytest.raises(DataError, match=r"does not tell its split|tars and folders of tars"):
        find_tars(tmp_path)


@pytest.mark.parametrize("name", ["a\nb", "artifact.json", "Notes.JSON"])
def test_a_split_that_cannot_be_a_folder_of_the_prepared_one_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "a-0.tar").touch()
    with pytest.raises(DataError, match=r"its split .* has control characters or ends in \.json; rename it"):
        find_tars(tmp_path)


def test_pipes_and_devices_are_refused_unopened(tmp_path: Path) -> None:
    for folder in ("pipe", "device"):
        (tmp_path / folder).mkdir()
    os.mkfifo(tmp_path / "pipe" / "val-0.tar")
    (tmp_path / "device" / "val-0.tar").symlink_to("/dev/zero")
    for folder in ("pipe", "device"):
        with pytest.raises(DataError, match="not a regular file"):
            find_tars(tmp_path / folder)


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("train-0.tar.gz", "gunzip"),
        ("train-0.tgz", "gunzip"),
        ("train-0.tar.zst", "unzstd"),
        ("train-0.tar.xz", "unxz"),
        ("train-0.tbz2", "bunzip2"),
        ("train-0.tar.lzma", "unlzma"),
        ("train-0.tzst", "unzstd"),
        ("train/x.tar.z", "gunzip"),
    ],
)
def test_a_compressed_tar_is_refused_with_the_program_that_unpacks_it(name: str, program: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "train-1.tar", make_pair())
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"compressed")
    with pytest.raises(DataError, match=f"is compressed; unpack it to a plain .tar with {program}, and keep only that"):
        find_tars(tmp_path)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("train-0.TAR", "is passed over by its name; rename it to end in .tar"),
        ("train-0.tar.GZ", "is compressed; rename it to end in .gz, unpack it to a plain .tar with gunzip"),
    ],
)
def test_a_tar_whose_name_is_in_capitals_is_not_passed_over(name: str, advice: str, tmp_path: Path) -> None:
    for each in ("train-1.tar", name):
        write_tar(tmp_path / each, make_pair())
    with pytest.raises(DataError, match=advice):
        find_tars(tmp_path)


def test_files_that_belong_to_tars_are_no_tars(tmp_path: Path) -> None:
    for name in ("train-0.tar", "train-0.tar.md5", "train-0.idx", "index.json.gz", "a.targets.gz", "notes.txt"):
        (tmp_path / name).touch()
    assert find_tars(tmp_path) == {"train": [tmp_path / "train-0.tar"]}


def test_the_advice_about_compressed_tars_helps(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole", make_pair()).read_bytes()
    file = tmp_path / "val-0.tar"
    file.write_bytes(gzip.compress(whole))
    with pytest.raises(DataError) as error:
        check_members(file)
    assert error.value.remedy == (
        "rename it to val-0.tar.gz, unpack it to a plain .tar with gunzip, and keep only that"
    )
    file.rename(tmp_path / "val-0.tar.gz")
    subprocess.run(["gunzip", "val-0.tar.gz"], cwd=tmp_path, check=True)
    assert find_tars(tmp_path) == {"val": [file]}
    assert file.read_bytes() == whole
    check_members(file)


def test_the_advice_about_members_that_are_apart_helps(tmp_path: Path) -> None:
    pairs = [*make_pair("a"), *make_pair("a-b", 2), *make_pair("a1", 3)]
    apart = write_tar(tmp_path / "val-0.tar", [*pairs[::2], *pairs[1::2]])
    with pytest.raises(DataError, match=r"write each record's image and .json one after the other: sort their names"):
        check_members(apart)
    check_members(write_tar(tmp_path / "val-1.tar", sorted(pairs, key=lambda member: member[0].name)))


def test_a_tar_or_a_pattern_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "val-000.tar", make_pair())
    for name, what in (("val-000.tar", "is a file"), ("val-{000..009}.tar", "no such folder"), ("*", "no such folder")):
        with pytest.raises(DataError, match=f"{what}; give the folder that holds the tars, no file and no pattern"):
            find_tars(tmp_path / name)


def test_names_that_begin_with_the_current_folder_are_keys_like_others(tmp_path: Path) -> None:
    """As `tar -cf val-0.tar ./*` writes them."""
    file = write_tar(tmp_path / "val-0.tar", [make_info("./", b"", type=tarfile.DIRTYPE), *make_pair("./a")])
    check_members(file)
    assert [key for key, _ in read_records(file, index_shard(file))] == ["./a"]
