from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import DataError
from shards.index import list_splits, read_index, verify_shards, write_index
from shards.indexing import index_split
from tests.support.tiny_shards import make_items, write_items


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_items(folder, make_items(folder / "images", [2, 0, 3]))
    shutil.rmtree(folder / "images")
    return folder


@pytest.fixture
def copied(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "copy"))


def test_an_index_reads_back_as_it_was_written(prepared: Path) -> None:
    index = read_index(prepared, "val")
    assert len(index) == 3
    assert index.num_expressions == 5
    assert index.keys == ("000000000100", "000000000107", "000000000114")
    assert index.image_ids.tolist() == [100, 107, 114]
    assert index.expressions.tolist() == [2, 0, 3]
    assert index.shard_indices.tolist() == [0, 0, 1]
    assert [shard.name for shard in index.shards] == ["val-000000.tar", "val-000001.tar"]
    assert json.loads((prepared / "val/index.json").read_text(encoding="utf-8")) == index.to_json()


def test_the_tars_alone_give_the_same_index(copied: Path) -> None:
    written = (copied / "val/index.json").read_text(encoding="utf-8")
    (copied / "val/index.json").unlink()
    write_index(copied, index_split(copied, "val"))
    rebuilt = json.loads((copied / "val/index.json").read_text(encoding="utf-8"))
    expected = json.loads(written)
    for shard in expected["shards"]:
        shard["source"] = ""
    assert rebuilt == expected


def test_splits_are_the_folders_with_an_index(copied: Path) -> None:
    shutil.copytree(copied / "val", copied / "testA")
    (copied / "scraps").mkdir()
    assert list_splits(copied) == ["testA", "val"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder; make it with igvg prepare"):
        read_index(tmp_path / "nowhere", "val")


def test_a_folder_without_splits_is_not_a_prepared_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no prepared split .*make it with igvg prepare"):
        read_index(tmp_path, "val")


def test_a_missing_split_is_answered_with_those_present(copied: Path) -> None:
    shutil.copytree(copied / "val", copied / "testA")
    with pytest.raises(DataError, match=r"no split 'train'; it holds testA, val"):
        read_index(copied, "train")


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.clear(),
        lambda document: document.update(columns=["key"]),
        lambda document: document.update(rows=document["rows"][:-1]),
        lambda document: document["rows"][0].pop(),
        lambda document: document["rows"][0].__setitem__(4, "many"),
        lambda document: document["rows"][2].__setitem__(3, 7),
        lambda document: document["shards"].pop(),
        lambda document: document["shards"][0].update(records=-1),
        lambda document: document["shards"][0].pop("sha256"),
        lambda document: document.update(shards=3),
    ],
)
def test_a_damaged_index_is_named_and_never_used(copied: Path, damage: object) -> None:
    assert callable(damage)
    file = copied / "val/index.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    damage(document)
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match=r"index.json: damaged index .*prepare the split again"):
        read_index(copied, "val")


@settings(deadline=None)
@given(st.data())
def test_an_index_that_breaks_off_is_damaged(prepared: Path, data: st.DataObject) -> None:
    file = prepared / "val/index.json"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 2))])
        with pytest.raises(
            DataError, match=r"index\.json: (is damaged or cut short|is an empty file).*prepare the split"
        ):
            read_index(prepared, "val")
    finally:
        file.write_bytes(whole)


def test_an_index_that_is_no_text_is_damaged(copied: Path) -> None:
    (copied / "val/index.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"index\.json: is text in UTF-16, not the index of a split"):
        read_index(copied, "val")


# Verification


def test_whole_shards_pass(prepared: Path) -> None:
    verify_shards(prepared, read_index(prepared, "val"), full=True)


@settings(deadline=None)
@given(st.data())
def test_any_flipped_bit_is_found(prepared: Path, data: st.DataObject) -> None:
    index = read_index(prepared, "val")
    file = prepared / "val/val-000001.tar"
    whole = file.read_bytes()
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"val-000001.tar: the shard differs from its SHA-256; prepare"):
            verify_shards(prepared, index, full=True)
    finally:
        file.write_bytes(whole)


def test_a_short_shard_is_found_by_its_size(copied: Path) -> None:
    index = read_index(copied, "val")
    file = copied / "val/val-000000.tar"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"has 10239 bytes instead of 10240"):
        verify_shards(copied, index)


def test_a_missing_shard_is_found(copied: Path) -> None:
    index = read_index(copied, "val")
    (copied / "val/val-000001.tar").unlink()
    with pytest.raises(DataError, match=r"val-000001.tar: the shard is missing"):
        verify_shards(copied, index)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../train/train-000000.tar", "/etc/passwd", "a\0b", "a\nb", "\x1b[31m"]
)
def test_a_shard_that_is_no_name_of_a_file_is_refused(copied: Path, name: str) -> None:
    file = copied / "val" / "index.json"
    document = json.loads(file.read_bytes())
    document["shards"][0]["name"] = name
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match=r"^[^\n]*index.json: damaged index \(ValueError: shard [^\n]*$"):
        read_index(copied, "val")
