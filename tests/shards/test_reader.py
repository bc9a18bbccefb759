from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import DataError
from shards.reader import ShardReader
from tests.support.foreign_contents import list_foreign_contents
from tests.support.tiny_shards import Item, make_items, write_items

Prepared = tuple[Path, list[Item]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("prepared")
    items = make_items(folder / "images", [2, 0, 3, 1, 1])
    write_items(folder, items)
    return folder, items


@pytest.fixture
def copied(prepared: Prepared, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared[0], tmp_path / "copy"))


def count_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@settings(deadline=None)
@given(st.lists(st.integers(0, 4)))
def test_records_and_images_are_read_in_any_order(prepared: Prepared, numbers: list[int]) -> None:
    folder, items = prepared
    with ShardReader(folder, "val") as reader:
        assert len(reader) == 5
        assert [reader.record(number) for number in numbers] == [items[number][0] for number in numbers]
        assert [reader.image(number) for number in numbers] == [items[number][1].read_bytes() for number in numbers]


def test_records_stream_in_shard_order(prepared: Prepared) -> None:
    folder, items = prepared
    assert list(ShardReader(folder, "val").records()) == [record for record, _ in items]


def test_a_number_past_the_end_is_an_index_error(prepared: Prepared) -> None:
    with pytest.raises(IndexError):
        ShardReader(prepared[0], "val").record(5)


def test_a_reader_moves_to_another_process_without_its_open_files(prepared: Prepared) -> None:
    reader = ShardReader(prepared[0], "val")
    reader.record(0)
    moved = pickle.loads(pickle.dumps(reader))
    reader.close()
    assert moved.record(4) == prepared[1][4][0]


def test_threads_share_a_reader(prepared: Prepared) -> None:
    folder, items = prepared
    images = [file.read_bytes() for _, file in items]
    with ShardReader(folder, "val") as reader, ThreadPoolExecutor(8) as threads:
        numbers = [number * 3 % 5 for number in range(400)]
        assert list(threads.map(reader.image, numbers)) == [images[number] for number in numbers]


def test_few_files_that_may_be_open_are_enough_for_many_shards(prepared: Prepared) -> None:
    folder, items = prepared
    reader = ShardReader(folder, "val")
    assert len(reader.index.shards) == 3
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        # One more than are open now.
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))  # noqa: PTH208
        found = [reader.image(number) for number in [*range(len(items)), 0]]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == [image.read_bytes() for _, image in [*items, items[0]]]


# Run in a process of its own: how many files other tests have left open here is not known.
READ_WITH_40_FILES = """
import os, resource, sys
from pathlib import Path
from shards.reader import ShardReader

resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
before = len(os.listdir("/proc/self/fd"))
with ShardReader(Path(sys.argv[1]), "val") as reader:
    images = [reader.image(number) for number in range(5)]
    print(len(os.listdir("/proc/self/fd")) - before, *(image.hex() for image in images))
"""


def test_a_reader_leaves_most_of_the_files_that_may_be_open_to_others(prepared: Prepared) -> None:
    folder, items = prepared
    read = subprocess.run(
        [sys.executable, "-c", READ_WITH_40_FILES, folder], capture_output=True, text=True, check=True
    )
    opened, *images = read.stdout.split()
    assert images == [image.read_bytes().hex() for _, image in items]
    assert int(opened) == 2


def test_a_closed_or_forgotten_reader_leaves_no_files_open(prepared: Prepared) -> None:
    before = count_open_files()
    reader = ShardReader(prepared[0], "val")
    list(reader.records())
    assert count_open_files() == before + 3
    reader.close()
    assert count_open_files() == before
    list(reader.records())
    del reader
    assert count_open_files() == before


# Damage


@settings(deadline=None)
@given(st.data())
def test_a_flipped_bit_in_a_member_names_shard_and_key(prepared: Prepared, data: st.DataObject) -> None:
    folder, items = prepared
    file = folder / "val/val-000001.tar"
    whole = file.read_bytes()
    reader = ShardReader(folder, "val")
    members, read = data.draw(
        st.sampled_from([(reader.index.images, reader.image), (reader.index.documents, reader.record)])
    )
    bit = data.draw(st.integers(0, int(members.sizes[3]) * 8 - 1))
    damaged = bytearray(whole)
    damaged[int(members.offsets[3]) + bit // 8] ^= 1 << bit % 8
    try:
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"val-000001.tar, key 000000000121: member .*is damaged; prepare"):
            read(3)
        assert reader.record(2) == items[2][0]
    finally:
        file.write_bytes(whole)


def test_a_shard_that_breaks_off_names_the_member(copied: Path) -> None:
    reader = ShardReader(copied, "val")
    offset = int(reader.index.documents.offsets[1])
    os.truncate(copied / "val/val-000000.tar", offset + 10)
    assert reader.record(0).image_id == 100
    with pytest.raises(DataError, match=r"key 000000000107: member 000000000107.json breaks off after 10 of \d+"):
        reader.record(1)


@pytest.mark.parametrize(("column", "value"), [("json_size", 1 << 50), ("json_offset", (1 << 63) - 1)])
def test_an_index_that_asks_for_more_than_the_shard_holds_reads_no_more(copied: Path, column: str, value: int) -> None:
    file = copied / "val/index.json"
    document = json.loads(file.read_text())
    document["rows"][0][document["columns"].index(column)] = value
    file.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"val-000000.tar, key 000000000100: member .*json breaks off after \d+ of \d+"):
        ShardReader(copied, "val").record(0)


def test_a_missing_shard_is_named(copied: Path) -> None:
    (copied / "val/val-000002.tar").unlink()
    with pytest.raises(DataError, match=r"val-000002.tar: no such file or folder; check the path"):
        ShardReader(copied, "val").image(4)


@pytest.mark.parametrize("kind", [kind for kind in list_foreign_contents(b"") if kind != "half"])
def test_a_shard_that_is_something_else_is_told(copied: Path, kind: str) -> None:
    file = copied / "val/val-000000.tar"
    content, words = list_foreign_contents(file.read_bytes())[kind]
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"val-000000.tar: {words}, not a shard; "):
        ShardReader(copied, "val").record(0)


def test_reading_needs_an_index(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        ShardReader(tmp_path / "nowhere", "val")
