"""What is taken of others' shards is what `webdataset.WebDataset` streams, with `enforce_security` on."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from shards.errors import DataError
from shards.files import read_range
from shards.foreign_shards import check_members, find_tars
from shards.index import join_shards
from shards.indexing import index_shard, list_members
from tests.support.tiny_shards import make_record

STREAM = """
import hashlib, json, sys
import webdataset

found = []
for urls in json.load(sys.stdin):
    assert webdataset.utils.enforce_security
    try:
        rows = [
            [one["__key__"], sorted([k, hashlib.sha256(v).hexdigest()] for k, v in one.items() if k[:2] != "__")]
            for one in webdataset.WebDataset(urls, shardshuffle=False)
        ]
    except Exception as error:
        rows = type(error).__name__
    found.append(rows)
print(json.dumps(found))
"""
Members = list[tuple[str, bytes]]
Row = tuple[str, dict[str, str]]


def make_members(key: str, image_id: int = 1, image: str = "jpg", more: Sequence[str] = ()) -> Members:
    record = make_record(image_id, "any.jpg", (16, 12), 1).to_json()
    record["expressions"][0]["id"] = f"grefcoco/{image_id}/{key}"
    fields = {image: b"image of " + key.encode(), "json": json.dumps(record).encode()}
    return [(f"{key}.{kind}", content) for kind, content in (fields | dict.fromkeys(more, b"7")).items()]


LONG = "long" * 20 + "/" + "name" * 30 + "/" + "x" * 120
LAYOUTS: dict[str, list[Members]] = {
    "folders in keys": [[*make_members("a/b/1"), *make_members("a.b/1", 2), *make_members("./c/1", 3)]],
    "long and other names": [[*make_members(LONG), *make_members("ü/ñ 猫", 2)], make_members("x" * 99, 3)],
    "several fields": [
        [*make_members("a", more=["cls", "seg.npy", "txt"]), *make_members("b", 2, "seg.png", ["json.gz"])]
    ],
    "the record first": [[*reversed(make_members("a", more=["cls"])), *make_members("b", 2)]],
    "large letters": [make_members("A", 1, "JPG")],
    "several shards": [make_members(key, number) for number, key in enumerate("cab")],
}
"""What both take: the members of each shard."""
REFUSED: dict[str, list[Members]] = {
    "members apart": [[make_members("a")[0], *make_members("b", 2), make_members("a")[1]]],
    "a record in two shards": [make_members("a")[:1], make_members("a")[1:]],
    "a key twice in a shard": [make_members("a") * 2],
    "a key in two shards": [make_members("a"), make_members("a")],
    "a hidden name": [[*make_members("a"), ("._a.jpg", b"x"), ("._a.json", b"x")]],
    "a hidden name in a folder": [[(f"f/.{kind}", b"{}") for kind in ("jpg", "json")]],
    "no extension": [[*make_members("a"), ("README", b"x")]],
    "a folder of metadata": [make_members("__meta__/a")],
    "a name that leads out": [make_members("../a")],
    "an absolute name": [make_members("/a")],
}


def write_shards(folder: Path, shards: list[Members], tar_format: int) -> list[Path]:
    folder.mkdir(parents=True)
    files = [folder / f"val-{number:06d}.tar" for number in range(len(shards))]
    for file, members in zip(files, shards, strict=True):
        with tarfile.open(file, "w", format=tar_format) as archive:
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return files


def stream_all(batches: list[list[str]]) -> list[list[list[object]] | str]:
    """The rows of each list of addresses, or the error; in one process of its own, as webdataset loads torch."""
    environment = {**os.environ, "WDS_SECURE": "1"}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STREAM], input=json.dumps(batches), check=True, text=True,
        env=environment, capture_output=True,
    )  # fmt: skip
    found: list[list[list[object]] | str] = json.loads(result.stdout)
    return found


def index_all(folder: Path) -> list[list[object]]:
    """The rows that the index has, in the form of `STREAM`.

    Raises:
        DataError: the shards are refused.
    """
    files = find_tars(folder)["val"]
    for file in files:
        check_members(file)
    index = join_shards("val", [index_shard(file) for file in files])
    rows: list[list[object]] = []
    for file in files:
        with file.open("rb") as stream:
            for key, kinds in list_members(file).items():
                digests = [
                    [kind.lower(), hashlib.sha256(read_range(stream.fileno(), *place)).hexdigest()]
                    for kind, place in kinds.items()
                ]
                rows.append([key, sorted(digests)])
    assert [row[0] for row in rows] == list(index.keys)
    return rows


def test_webdataset_streams_the_records_that_the_index_has(tmp_path: Path) -> None:
    formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    folders = []
    for name, shards in LAYOUTS.items():
        for format_name, tar_format in formats.items():
            if name != "long and other names" or format_name != "ustar":
                write_shards(tmp_path / name / format_name, shards, tar_format)
                folders.append(tmp_path / name / format_name)
    streamed = stream_all([[str(file) for file in sorted(folder.iterdir())] for folder in folders])
    for folder, rows in zip(folders, streamed, strict=True):
        assert index_all(folder) == rows, folder
    assert sum(map(len, streamed)) == 3 * (3 + 2 + 2 + 1 + 3) + 2 * 3


@pytest.mark.parametrize("name", REFUSED)
def test_what_webdataset_takes_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", REFUSED[name], tarfile.PAX_FORMAT)
    with pytest.raises(DataError):
        index_all(tmp_path / "shards")


def test_webdataset_takes_members_that_are_apart_as_records_of_their_own_and_no_pipe(tmp_path: Path) -> None:
    files = {name: write_shards(tmp_path / name, REFUSED[name], tarfile.PAX_FORMAT) for name in REFUSED}
    pipe = f"pipe:cat {files['members apart'][0]}"
    apart, hidden, piped = stream_all([[str(files["members apart"][0])], [str(files["a hidden name"][0])], [pipe]])
    assert [row[0] for row in apart] == ["a", "b", "a"]
    assert [row[0] for row in hidden] == ["a"]
    assert isinstance(piped, str)
    with pytest.raises(DataError, match="no such folder"):
        find_tars(Path(pipe))


@pytest.mark.parametrize("name", ["val-000001.tar.gz", "val-000001.tgz", "val/x.tar.zst"])
def test_compressed_shards_are_named_and_never_passed_over(name: str, tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", [make_members("a")], tarfile.PAX_FORMAT)
    (tmp_path / "shards" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "shards" / name).write_bytes(b"")
    with pytest.raises(DataError, match="is compressed; unpack it to a plain") as error:
        find_tars(tmp_path / "shards")
    assert error.value.file == tmp_path / "shards" / name
