"""Shards that others wrote are checked by their headers, their records and their images."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.errors import DataError
from shards.foreign_shards import MAX_MEMBER_BYTES, check_members, find_tars, read_records
from shards.indexing import index_shard
from tests.support.foreign_tars import draw_image, make_info, make_pair, write_tar
from tests.support.paths import ROOT
from tests.support.tiny_shards import fill_masks, make_items, make_record, write_items


def patch_header(file: Path, change: Callable[[bytearray], None], end: int) -> None:
    """Change the first header, correct its checksum, and give the file a length without writing it."""
    data = bytearray(file.read_bytes())
    change(data)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    file.write_bytes(data)
    os.truncate(file, end)


def set_size(size: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[124:136] = b"\x80" + size.to_bytes(11, "big") if size >= 8**11 else b"%011o\0" % size

    return change


def set_type_and_size(kind: bytes, size: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        set_size(size)(data)
        data[156:157] = kind

    return change


HOSTILE = {
    "../x.json": [make_info("../x.json")],
    "a/../../x.json": [make_info("a/../../x.json")],
    "/etc/passwd.json": [make_info("/etc/passwd.json")],
    "a\\\\b.json": [make_info("a\\b.json")],
    "a\\nb.json": [make_info("a\nb.json")],
    "a\\x00b.json": [make_info("ab.json", pax_headers={"path": "a\0b.json"})],
    "link": [make_info("link", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
    "hard": [make_info("hard", b"", type=tarfile.LNKTYPE, linkname="a.png")],
    "device": [make_info("device", b"", type=tarfile.CHRTYPE)],
    "pipe": [make_info("pipe", b"", type=tarfile.FIFOTYPE)],
    "big.json": [make_info("big.json", b" " * (17 << 20))],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members_are_refused_by_name(name: str, tmp_path: Path) -> None:
    file = write_tar(tmp_path / "val-0.tar", [*make_pair(), *HOSTILE[name]])
    with pytest.raises(DataError) as error:
        check_members(file)
    assert f"member '{name}'" in str(error.value)
    assert str(error.value).startswith(str(file))
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("kind", "size", "why"),
    [
        (b"0", 40 << 30, "a member may have"),
        (b"0", 1 << 70, "a member may have"),
        (b"x", 40 << 30, "a name or description"),
        (b"L", 40 << 30, "a name or description"),
        (b"g", 40 << 30, "a name or description"),
        (b"S", 512, "is a sparse file"),
        (b"7", MAX_MEMBER_BYTES, "and the tar ends after"),
    ],
)
def test_sizes_beyond_reason_are_refused_from_the_header_alone(
    kind: bytes, size: int, why: str, tmp_path: Path
) -> None:
    """The file is as long as the header says, and takes no space."""
    file = write_tar(tmp_path / "val-0.tar", make_pair(), tarfile.GNU_FORMAT)
    patch_header(file, set_type_and_size(kind, size), min(size, 64 << 30) if kind != b"7" else 20_000)
    code = f"""
from pathlib import Path
from shards.errors import DataError
from shards.foreign_shards import check_members
try:
    check_members(Path({str(file)!r}))
except DataError as error:
    print(error)
"""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (500 << 20, 500 << 20))

    started = time.monotonic()
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, preexec_fn=limit
    )
    assert re.search(why, result.stdout), result.stderr
    assert result.stdout.count("\n") == 1
    assert time.monotonic() - started < 5


def test_a_header_that_changes_the_size_of_another_member_is_refused(tmp_path: Path) -> None:
    pair = make_pair()
    pair[0][0].pax_headers = {"size": "5"}
    with pytest.raises(DataError, match="changes the size of another member"):
        check_members(write_tar(tmp_path / "val-0.tar", pair))


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.foreign_shards.MAX_MEMBERS", 3)
    file = write_tar(tmp_path / "val-0.tar", [*make_pair("a"), *make_pair("b")])
    with pytest.raises(DataError, match="holds more than 3 members"):
        check_members(file)


def test_a_name_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="occurs twice"):
        check_members(write_tar(tmp_path / "val-0.tar", [*make_pair(), *make_pair()]))


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_programs_write_is_taken(tar_format: int, tmp_path: Path) -> None:
    folder = make_info("folder/", b"", type=tarfile.DIRTYPE)
    long = "long" * 20 + "/" + "name" * 20
    members = [folder, *make_pair("folder/ü"), make_info("folder/ü.cls", b"7"), *make_pair(long, 2)]
    file = write_tar(tmp_path / "val-0.tar", members, tar_format)
    check_members(file)
    assert [key for key, _ in read_records(file, index_shard(file))] == ["folder/ü", long]


def test_our_own_shards_are_taken(tmp_path: Path) -> None:
    items = [(fill_masks(record), file) for record, file in make_items(tmp_path / "images", [2, 0, 3])]
    write_items(tmp_path, items)
    read = []
    for file in find_tars(tmp_path)["val"]:
        check_members(file)
        read += [record for _, record in read_records(file, index_shard(file))]
    assert read == [record for record, _ in items]


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (draw_image((12, 16)), "the image has 12 × 16 pixels, the annotations say 16 × 12"),
        (draw_image()[:-30], "is damaged or cut short"),
        (b"no image", "is damaged or"),
    ],
)
def test_an_image_that_does_not_fit_its_record_is_refused(image: bytes, why: str, tmp_path: Path) -> None:
    file = write_tar(tmp_path / "val-0.tar", make_pair(image=image))
    check_members(file)
    with pytest.raises(DataError, match=re.escape(why)) as error:
        list(read_records(file, index_shard(file)))
    assert error.value.record == "key a"


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        ({"size": [12, 16], "counts": "1"}, "has run lengths that do not add up to the 192 pixels"),
        ({"size": [16, 12], "counts": "P6"}, r"a mask of \[16, 12\] in an image of \[12, 16\]"),
        ({"size": [12, 16], "counts": "00P60"}, "has runs of no pixels"),
    ],
)
def test_a_mask_that_does_not_decode_safely_is_refused(mask: object, why: str, tmp_path: Path) -> None:
    document = make_record(1, "a.png", (16, 12), 1).to_json()
    document["instances"][0]["mask"] = mask
    members = [make_info("a.png", draw_image()), make_info("a.json", json.dumps(document).encode())]
    file = write_tar(tmp_path / "val-0.tar", members)
    with pytest.raises(DataError, match=why):
        list(read_records(file, index_shard(file)))


@pytest.mark.parametrize("box", [[4, 4, 4, 8], [0, 4, 4, 4], [0, 0, 0, 0]])
def test_a_box_of_no_pixels_is_refused(box: list[int], tmp_path: Path) -> None:
    document = fill_masks(make_record(1, "a.png", (16, 12), 1)).to_json()
    document["instances"][0]["box"] = box
    members = [make_info("a.png", draw_image()), make_info("a.json", json.dumps(document).encode())]
    file = write_tar(tmp_path / "val-0.tar", members)
    with pytest.raises(DataError, match="covers no pixel"):
        list(read_records(file, index_shard(file)))


@pytest.mark.parametrize("value", ["-1", str(1 << 63), "Infinity", "1e999", "[" * 200_000, "{}"])
def test_a_record_that_is_none_is_refused(value: str, tmp_path: Path) -> None:
    record = json.dumps(fill_masks(make_record(1, "a.png", (16, 12), 1)).to_json())
    document = record.replace('"image_id": 1,', f'"image_id": {value},').encode()
    file = write_tar(tmp_path / "val-0.tar", [make_info("a.png", draw_image()), make_info("a.json", document)])
    check_members(file)
    with pytest.raises(DataError) as error:
        list(read_records(file, index_shard(file)))
    assert error.value.record == "key a"


def test_an_image_of_more_pixels_than_fit_is_refused_unread(tmp_path: Path) -> None:
    record = json.dumps(make_record(1, "a.png", (20_000, 20_000), 1).to_json()).encode()
    file = write_tar(tmp_path / "val-0.tar", [make_info("a.png", draw_image()), make_info("a.json", record)])
    with pytest.raises(DataError, match="20000 × 20000 pixels"):
        list(read_records(file, index_shard(file)))
