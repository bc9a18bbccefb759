from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards.errors import DataError
from shards.progress import set_sink
from shards.reader import ShardReader
from shards.writer import slice_items, write_split
from tests.support import tiny_shards
from tests.support.tiny_shards import Item, make_items, make_record, write_items

STREAM = """
    import hashlib, json, sys
    import webdataset

    samples = webdataset.WebDataset(sys.argv[1:], shardshuffle=False)
    rows = [(one["__key__"], hashlib.sha256(one["jpg"]).hexdigest(), json.loads(one["json"])) for one in samples]
    print(json.dumps(rows))
"""
REWRITE = """
    import sys
    import webdataset

    with open(sys.argv[2], "wb") as stream:
        with webdataset.TarWriter(stream, encoder=False, user="", group="", mode=0o644, mtime=0) as writer:
            for one in webdataset.WebDataset(sys.argv[1:2], shardshuffle=False):
                writer.write({key: one[key] for key in ("__key__", "jpg", "json")})
"""
SIZES = st.lists(st.integers(0, 9), max_size=12)


def read_bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def list_names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def interrupt(done: int, total: int, remark: str) -> None:
    if done:
        raise KeyboardInterrupt


def test_a_split_is_written_in_the_layout_of_the_contract(tmp_path: Path) -> None:
    items = make_items(tmp_path / "images", [2, 0, 3])
    write_items(tmp_path / "out", items)
    assert list_names(tmp_path / "out/val") == ["index.json", "val-000000.tar", "val-000001.tar"]
    with tarfile.open(tmp_path / "out/val/val-000000.tar") as archive:
        contents = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert list(contents) == [f"000000000{n}" for n in ("100.jpg", "100.json", "107.jpg", "107.json")]
    assert contents["000000000107.jpg"] == items[1][1].read_bytes()
    assert json.loads(contents["000000000100.json"]) == items[0][0].to_json()
    assert "Männchen".encode() in contents["000000000100.json"]
    assert b": " not in contents["000000000100.json"]


def test_the_index_names_shards_counts_sizes_and_checksums(tmp_path: Path) -> None:
    write_items(tmp_path, make_items(tmp_path / "images", [2, 0, 3]))
    document = json.loads((tmp_path / "val/index.json").read_text(encoding="utf-8"))
    assert [document[key] for key in ("split", "records", "expressions")] == ["val", 3, 5]
    first = document["shards"][0]
    assert [first[key] for key in ("name", "records", "expressions")] == ["val-000000.tar", 2, 2]
    assert first["bytes"] == (tmp_path / "val/val-000000.tar").stat().st_size
    assert len(first["sha256"]) == 64


def test_plain_webdataset_streams_the_shards(tmp_path: Path) -> None:
    items = make_items(tmp_path / "images", [2, 0, 3])
    write_items(tmp_path, items)
    # In a process of its own: webdataset leaves its files to the garbage collector, which warns, and loads torch.
    command = [sys.executable, "-c", textwrap.dedent(STREAM), *sorted(map(str, (tmp_path / "val").glob("*.tar")))]
    samples = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert samples == [
        [f"{record.image_id:012d}", hashlib.sha256(image.read_bytes()).hexdigest(), record.to_json()]
        for record, image in items
    ]


def test_the_same_images_and_records_give_the_same_bytes_in_every_version(tmp_path: Path) -> None:
    items = []
    for index in range(2):
        file = tmp_path / f"{index}.ppm"
        file.write_bytes(b"P6 16 12 255\n" + bytes(range(192)) * 3)
        items.append((make_record(100 + index, file.name, (16, 12), index + 1), file))
    write_items(tmp_path, items)
    digest = hashlib.sha256((tmp_path / "val/val-000000.tar").read_bytes()).hexdigest()
    assert digest == "bc3795f79b9e30f92d216f29dfa51adb3ecd3e18ece4ca0f67491337733526a8"


def test_webdataset_writes_the_same_bytes(tmp_path: Path) -> None:
    write_items(tmp_path, make_items(tmp_path / "images", [2, 0, 3]), records=3)
    shard = tmp_path / "val/val-000000.tar"
    command = [sys.executable, "-c", textwrap.dedent(REWRITE), str(shard), str(tmp_path / "theirs.tar")]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "theirs.tar").read_bytes() == shard.read_bytes()


@pytest.mark.parametrize(("extension", "written"), [("png", "png"), ("jpeg", "jpeg"), ("JPG", "jpg"), ("webp", "webp")])
def test_an_image_keeps_its_bytes_and_its_own_extension(tmp_path: Path, extension: str, written: str) -> None:
    items = make_items(tmp_path / "images", [1], extension)
    write_items(tmp_path, items)
    with ShardReader(tmp_path, "val") as reader:
        assert reader.index.extensions == (written,)
        assert reader.image(0) == items[0][1].read_bytes()


def test_bytes_depend_neither_on_workers_nor_on_time_nor_on_place(tmp_path: Path) -> None:
    items = make_items(tmp_path / "images", [2, 0, 3, 1, 1])
    moved = [(record, tmp_path / "elsewhere" / file.name) for record, file in items]
    shutil.copytree(tmp_path / "images", tmp_path / "elsewhere")
    for _, file in moved:
        os.utime(file, (0, 0))
    write_items(tmp_path / "one", items)
    write_items(tmp_path / "two", moved, workers=2)
    assert read_bytes(tmp_path / "one/val") == read_bytes(tmp_path / "two/val")


def test_an_empty_split_is_an_index_without_shards(tmp_path: Path) -> None:
    result = write_split(tmp_path, "val", [], tiny_shards.return_record)
    assert (len(result.index), result.errors) == (0, ())
    assert list(ShardReader(tmp_path, "val").records()) == []


def test_a_shard_of_nothing_but_errors_is_empty_and_streams(tmp_path: Path) -> None:
    items = make_items(tmp_path / "images", [1, 1, 1])
    items[0][1].unlink()
    items[1][1].unlink()
    assert len(write_items(tmp_path, items)) == 2
    assert [record.image_id for record in ShardReader(tmp_path, "val").records()] == [114]


def test_progress_counts_the_items_done(tmp_path: Path) -> None:
    items, reports = make_items(tmp_path / "images", [1] * 5), list[tuple[int, int, str]]()
    with set_sink(progress=lambda *report: reports.append(report)):
        write_split(tmp_path, "val", items, tiny_shards.return_record, records_per_shard=2)
    assert reports == [(done, 5, "val") for done in (0, 2, 4, 5)]


@settings(deadline=None)
@given(SIZES, st.integers(1, 5), st.integers(1, 20))
def test_slices_are_all_items_in_order_within_the_bounds(sizes: list[int], records: int, size: int) -> None:
    class SizedPath(type(Path())):  # type: ignore[misc]
        def is_file(self, **options: object) -> bool:
            return True

        def stat(self, **options: object) -> os.stat_result:
            return os.stat_result((0, 0, 0, 0, 0, 0, int(self.name), 0, 0, 0))

    items = [(number, SizedPath(str(value))) for number, value in enumerate(sizes)]
    slices = slice_items(items, records=records, size=size)
    assert [item for part in slices for item in part] == items
    for part in slices:
        assert 1 <= len(part) <= records
        assert len(part) == 1 or sum(int(image.name) for _, image in part) <= size
    for part, following in itertools.pairwise(slices):
        assert len(part) == records or sum(int(image.name) for _, image in [*part, following[0]]) > size


# Errors


def make_faulty_items(folder: Path) -> list[Item]:
    """Seven records, of which the second to sixth cannot be written."""
    items = make_items(folder, [1, 1, 1, 1, 1, 3, 1])
    items[1][1].unlink()
    items[2][1].write_bytes(items[2][1].read_bytes()[:-200])
    items[3] = make_record(3, "image3.jpg", (99, 98), 1), items[3][1]
    items[4][1].write_text("<html>404</html>")
    return items


@pytest.mark.parametrize("workers", [1, 2])
def test_all_errors_are_collected_and_the_other_records_written(tmp_path: Path, workers: int) -> None:
    items = make_faulty_items(tmp_path / "images")
    result = write_split(tmp_path, "val", items, tiny_shards.refuse_crowds, workers=workers, records_per_shard=3)
    words = [
        "no such file",
        "is damaged or cut short",
        "16 × 15 pixels, the annotations say 99 × 98",
        "not an image",
        "too many",
    ]
    assert [word in str(error) for word, error in zip(words, result.errors, strict=True)] == [True] * 5
    assert [Path(error.file).name for error in result.errors[:4] if error.file] == [
        f"image{number}.jpg" for number in (1, 2, 3, 4)
    ]
    assert [error.record for error in result.errors] == [f"image {number}" for number in (107, 114, 3, 128, 135)]
    assert [record.image_id for record in ShardReader(tmp_path, "val").records()] == [100, 142]


def test_errors_are_reported_again_by_the_next_run(tmp_path: Path) -> None:
    items = make_faulty_items(tmp_path / "images")
    first = [str(error) for error in write_items(tmp_path, items)]
    assert first
    assert [str(error) for error in write_items(tmp_path, items)] == first


def test_an_image_given_twice_is_an_error(tmp_path: Path) -> None:
    [item] = make_items(tmp_path / "images", [1])
    with pytest.raises(DataError, match=r"key 000000000100: occurs twice in split 'val'"):
        write_items(tmp_path, [item, item], records=1)
    with pytest.raises(DataError, match=r"000000000100.jpg: occurs twice in the shard"):
        write_items(tmp_path, [item, item], records=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bug_in_build_is_not_taken_for_an_error_of_the_data(tmp_path: Path, workers: int) -> None:
    items = make_items(tmp_path / "images", [1, 1, 1, 1])
    with pytest.raises(ZeroDivisionError, match="a bug at 1"):
        write_split(tmp_path, "val", items, tiny_shards.stumble, workers=workers, records_per_shard=2)
    assert list_names(tmp_path / "val") == []


# Continuing


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted_work_goes_on_where_it_stopped(tmp_path: Path, workers: int) -> None:
    items = make_items(tmp_path / "images", [2, 0, 3, 1, 1])
    with pytest.raises(KeyboardInterrupt), set_sink(progress=interrupt):
        write_split(tmp_path / "out", "val", items, tiny_shards.return_record, workers=workers, records_per_shard=2)
    finished = {file.name: file.stat().st_ino for file in (tmp_path / "out/val").glob("*.tar")}
    assert finished
    assert not (tmp_path / "out/val/index.json").exists()
    write_items(tmp_path / "out", items)
    assert {name: (tmp_path / "out/val" / name).stat().st_ino for name in finished} == finished
    write_items(tmp_path / "undisturbed", items)
    assert read_bytes(tmp_path / "out/val") == read_bytes(tmp_path / "undisturbed/val")


def test_a_finished_split_is_kept_as_it_is(tmp_path: Path) -> None:
    items = make_items(tmp_path / "images", [2, 0, 3, 1, 1])
    write_items(tmp_path, items)
    before = {file: file.stat().st_ino for file in (tmp_path / "val").glob("*.tar")}
    write_items(tmp_path, items)
    assert {file: file.stat().st_ino for file in (tmp_path / "val").glob("*.tar")} == before


def change_image(items: list[Item], out: Path) -> None:
    record, file = items[2]
    Image.new("RGB", (record.width, record.height), "red").save(file)


def change_draft(items: list[Item], out: Path) -> None:
    items[2] = make_record(114, "image2.bmp", (16, 14), 2), items[2][1]


def damage_shard(items: list[Item], out: Path) -> None:
    file = out / "val/val-000001.tar"
    data = bytearray(file.read_bytes())
    data[700] ^= 4
    file.write_bytes(data)


def damage_index(items: list[Item], out: Path) -> None:
    (out / "val/index.json").write_text("{}")


def leave_damaged_note(items: list[Item], out: Path) -> None:
    (out / "val/val-000001.tar.json").write_text('{"entry": {"name": 3}}')


def change_levels(items: list[Item], out: Path) -> None:
    """As many bytes as before, other levels."""
    data = bytearray(items[2][1].read_bytes())
    data[-1] ^= 0xFF
    items[2][1].write_bytes(data)


@pytest.mark.parametrize(
    "change", [change_image, change_levels, change_draft, damage_shard, damage_index, leave_damaged_note]
)
def test_a_shard_whose_sources_or_bytes_changed_is_written_again(tmp_path: Path, change: object) -> None:
    assert callable(change)
    # Of uncompressed images every byte is a level.
    items = make_items(tmp_path / "images", [2, 0, 3, 1, 1], "bmp")
    write_items(tmp_path / "out", items)
    before = (tmp_path / "out/val/val-000001.tar").stat().st_ino
    os.link(tmp_path / "out/val/val-000001.tar", tmp_path / "keeps-the-inode-in-use")
    change(items, tmp_path / "out")
    write_items(tmp_path / "out", items)
    assert (tmp_path / "out/val/val-000001.tar").stat().st_ino != before
    write_items(tmp_path / "fresh", items)
    assert read_bytes(tmp_path / "out/val") == read_bytes(tmp_path / "fresh/val")


def test_shards_and_scraps_of_an_earlier_run_are_cleared_away(tmp_path: Path) -> None:
    items = make_items(tmp_path / "images", [2, 0, 3, 1, 1])
    write_items(tmp_path, items, records=1)
    (tmp_path / "val/.val-000009.tar.123.tmp").write_text("half a shard")
    write_items(tmp_path, items[:2], records=2)
    assert list_names(tmp_path / "val") == ["index.json", "val-000000.tar"]
