from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import DataError
from shards.index import index_shard, index_split, list_splits, read_index, verify_shards, write_index
from shards.reader import ShardReader
from tests.support.tiny_shards import make_items, make_record, write_items

Members = list[tuple[str, bytes]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_items(folder, make_items(folder / "images", [2, 0, 3]))
    shutil.rmtree(folder / "images")
    return folder


@pytest.fixture
def copied(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "copy"))


def write_tar(file: Path, members: Members, tar_format: int = tarfile.USTAR_FORMAT) -> Path:
    """A shard as another program might write it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=tar_format) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(content), 1_700_000_000, "bigdata"
            archive.addfile(member, io.BytesIO(content))
    return file


def make_members(key: str, image_id: int, count: int) -> Members:
    document = json.dumps(make_record(image_id, "any.jpg", (16, 12), count).to_json(), indent=2).encode()
    return [(f"{key}.cls", b"7"), (f"{key}.json", document), (f"{key}.jpg", b"image of " + key.encode())]


def test_an_index_reads_back_as_it_was_written(prepared: Path) -> None:
    index = read_index(prepared, "val")
    assert len(index) == 3
    assert index.num_expressions == 5
    assert index.keys == ("000000000100", "000000000107", "000000000114")
    assert index.image_ids.tolist() == [100, 107, 114]
    assert index.expressions.tolist() == [2, 0, 3]
    assert index.shard_numbers.tolist() == [0, 0, 1]
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


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_of_another_program_can_be_indexed_and_read(tmp_path: Path, tar_format: int) -> None:
    long_key = "long" * 20 + "/" + "name" * 20
    write_tar(tmp_path / "dev/b.tar", make_members("x", 3, 1), tar_format)
    members = [*make_members("ü/2", 2, 0), *make_members("a.folder/1", 1, 4)]
    write_tar(tmp_path / "dev/a.tar", [*members, *make_members(long_key, 9, 2)], tar_format)
    write_index(tmp_path, index_split(tmp_path, "dev"))
    with ShardReader(tmp_path, "dev") as reader:
        assert reader.index.keys == ("ü/2", "a.folder/1", long_key, "x")
        assert [record.image_id for record in reader.records()] == [2, 1, 9, 3]
        assert reader.index.expressions.tolist() == [0, 4, 2, 1]
        assert reader.image(1) == b"image of a.folder/1"


def test_folders_in_a_tar_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "dev/a.tar"
    file.parent.mkdir()
    with tarfile.open(file, "w") as archive:
        folder = tarfile.TarInfo("data")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in make_members("data/1", 1, 1):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert [row.key for row in index_shard(file).rows] == ["data/1"]


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


# Tars that do not keep to the layout


def test_a_split_without_tars_cannot_be_indexed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dev: holds no .tar files"):
        index_split(tmp_path, "dev")


@pytest.mark.parametrize("kept", [[0, 1], [0, 2]])
def test_a_record_needs_its_image_and_its_json(tmp_path: Path, kept: list[int]) -> None:
    members = make_members("1", 1, 1)
    file = write_tar(tmp_path / "a.tar", [*make_members("0", 0, 1), *(members[position] for position in kept)])
    with pytest.raises(DataError, match=r"a.tar, key 1: is not one image and one .json, but .cls, .j"):
        index_shard(file)


def test_a_record_has_one_image(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "a.tar", [*make_members("1", 1, 1), ("1.png", b"")])
    with pytest.raises(DataError, match=r"one image and one .json, but .cls, .json, .jpg, .png"):
        index_shard(file)


def test_a_member_occurs_once(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "a.tar", make_members("1", 1, 1) * 2)
    with pytest.raises(DataError, match=r"member 1.cls: occurs twice in the shard"):
        index_shard(file)


def test_a_key_occurs_once_in_a_split(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tar(tmp_path / f"dev/{name}.tar", make_members("1", 1, 1))
    with pytest.raises(DataError, match=r"key 1: occurs twice in split 'dev'"):
        index_split(tmp_path, "dev")


@pytest.mark.parametrize(
    ("document", "words"),
    [(b"{", r"its .json is damaged"), (b"\xff", r"its .json is damaged"), (b"{}", r"not an image record: KeyError")],
)
def test_a_json_that_is_no_record_is_named(tmp_path: Path, document: bytes, words: str) -> None:
    file = write_tar(tmp_path / "a.tar", [("1.jpg", b""), ("1.json", document)])
    with pytest.raises(DataError, match=rf"a.tar, key 1: {words}"):
        index_shard(file)


def test_a_compressed_tar_is_refused(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "a.tar", make_members("1", 1, 1))
    file.write_bytes(gzip.compress(file.read_bytes()))
    with pytest.raises(
        DataError, match=r"tar: is compressed with gzip, not an uncompressed tar; unpack it with gunzip"
    ):
        index_shard(file)


def test_a_broken_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "a.tar", [*make_members("0", 0, 1), *make_members("1", 1, 1)])
    whole = bytearray(file.read_bytes())
    whole[whole.index(b"1.cls")] = ord("9")
    file.write_bytes(whole)
    with pytest.raises(DataError, match=r"the tar breaks off at byte \d+"):
        index_shard(file)


@settings(deadline=None)
@given(st.data())
def test_a_tar_that_breaks_off_is_never_indexed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = write_tar(tmp_path_factory.mktemp("cut") / "a.tar", [*make_members("0", 0, 1), *make_members("1", 1, 1)])
    whole = file.read_bytes()
    end = len(whole.rstrip(b"\0"))
    file.write_bytes(whole[: data.draw(st.integers(0, end))])
    with pytest.raises(DataError, match=r"breaks off at byte|not an uncompressed tar|is damaged or cut short"):
        index_shard(file)
