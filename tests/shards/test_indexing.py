"""Shards are indexed from their tars alone, those of other programs too."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import DataError
from shards.index import write_index
from shards.indexing import index_shard, index_split
from shards.reader import ShardReader
from tests.support.tiny_shards import make_record

Members = list[tuple[str, bytes]]


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


def test_a_sparse_member_is_refused_before_its_size_is_read(tmp_path: Path) -> None:
    """Its header says how large it is when unpacked: here an exbibyte."""
    file = tmp_path / "dev/a.tar"
    file.parent.mkdir()
    members = make_members("a", 1, 1)
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if name.endswith(".jpg"):
                member.pax_headers = {"GNU.sparse.map": f"0,{len(content)}", "GNU.sparse.size": str(1 << 60)}
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(DataError, match=r"a.tar, member a.jpg: is sparse, not stored whole; write a tar"):
        index_shard(file)


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
    [
        (b"{", r"its .json is damaged"),
        (b"\xff", r"its .json is damaged"),
        (b"{}", r"not an image record: it lacks 'image_id'"),
    ],
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
