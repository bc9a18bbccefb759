"""Shards that others wrote are checked by their headers, their records and their images."""

from __future__ import annotations

import gzip
import io
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
from PIL import Image

from shards.errors import DataError
from shards.foreign_shards import MAX_MEMBER_BYTES, check_members, find_tars, read_records
from shards.indexing import index_shard
from tests.support.paths import ROOT
from tests.support.tiny_shards import fill_masks, make_items, make_record, write_items


def draw_image(size: tuple[int, int] = (16, 12)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, "PNG")
    return stream.getvalue()


def make_info(name: str, content: bytes = b"x", **values: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in values.items():
        setattr(info, key, value)
    return info, content


def make_pair(key: str = "a", image_id: int = 1, image: bytes = b"") -> list[tuple[tarfile.TarInfo, bytes]]:
    record = json.dumps(fill_masks(make_record(image_id, "a.png", (16, 12), 2)).to_json()).encode()
    return [make_info(f"{key}.png", image or draw_image()), make_info(f"{key}.json", record)]


def write_tar(file: Path, members: list[tuple[tarfile.TarInfo, bytes]], tar_format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(file, "w", format=tar_format) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content) if content else None)
    return file


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
