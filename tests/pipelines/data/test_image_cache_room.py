"""Image caches that are no longer used make room, and no cache that is used does."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.data.image_cache import ImageCache, describe_cache
from pipelines.data.image_cache_building import build_caches
from pipelines.data.image_cache_room import name_lock
from shards.progress import set_sink
from shards.reader import ShardReader
from tests.support.drawn_shards import write_noise

IMAGES = 10
# Of a cache of ten images, at these sizes.
BYTES = {size: 8192 + IMAGES * 3 * size**2 for size in (16, 17, 18, 30)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("noise") / "drawn", images=IMAGES)


@pytest.fixture
def shards(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "shards"))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged of removed files."""
    found: list[str] = []
    with set_sink(log=lambda line: found.append(line) if "removed" in line else None):
        yield found


def build(shards: Path, size: int, limit: float = 1) -> ImageCache:
    return build_caches([ShardReader(shards, "val")], size, limit=limit, workers=0)[0]


def list_sizes(shards: Path) -> list[int]:
    """The sizes of the caches that are there."""
    return sorted(int(file.name.split("-")[1]) for file in (shards / "cache").glob("*.images"))


def build_three(shards: Path) -> None:
    """Caches of three sizes; 17 was used longest ago, then 16."""
    for age, size in ((200, 16), (300, 17), (100, 18)):
        file = build(shards, size).file
        os.utime(file, (file.stat().st_mtime - age,) * 2)


def test_caches_of_images_that_were_replaced_are_removed(shards: Path, tmp_path: Path, lines: list[str]) -> None:
    build_three(shards)
    assert lines == []
    shutil.rmtree(shards / "val")
    (write_noise(tmp_path / "other", images=IMAGES - 1) / "val").rename(shards / "val")
    build(shards, 30)
    assert list_sizes(shards) == [30]
    assert len(list((shards / "cache").iterdir())) == 2
    assert lines == [f"image caches removed from {shards / 'cache'}, 0.05 MB: 3 of images that no split holds any more"]


def test_the_caches_used_least_recently_make_room(shards: Path, lines: list[str]) -> None:
    build_three(shards)
    limit = BYTES[30] + BYTES[16] + BYTES[18]
    build(shards, 30, limit / 1e9)
    assert list_sizes(shards) == [16, 18, 30]
    assert "1 used least recently, for the limit of 0.07 MB" in lines[0]
    # Reading counts as use.
    build(shards, 16)
    build(shards, 30, (limit - BYTES[18]) / 1e9)
    assert list_sizes(shards) == [16, 30]


def test_a_cache_without_room_of_its_own_removes_none(shards: Path) -> None:
    build_three(shards)
    build(shards, 30, 0)
    assert list_sizes(shards) == [16, 17, 18]


def test_caches_of_other_processors_stay_while_there_is_room(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    build(shards, 16)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    build(shards, 16)
    fused = "avx2" in Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    assert list_sizes(shards) == [16] * (1 + fused)


def test_a_cache_that_is_read_or_built_stays_and_takes_of_the_limit(shards: Path) -> None:
    build_three(shards)
    layout = describe_cache(ShardReader(shards, "val").index, 17)
    read = ImageCache(next((shards / "cache").glob("val-17-*")), layout)
    assert read.read(0) is not None
    built = os.open(name_lock(next((shards / "cache").glob("val-16-*"))), os.O_RDWR)
    fcntl.flock(built, fcntl.LOCK_EX)
    count = len(build(shards, 30, (BYTES[30] + BYTES[16]) / 1e9))
    assert list_sizes(shards) == [16, 17, 30]
    assert count == IMAGES - -(-BYTES[17] // (3 * 30**2))
    del read
    os.close(built)
    assert len(build(shards, 30, BYTES[30] / 1e9)) == IMAGES
    assert list_sizes(shards) == [30]


def test_files_that_are_no_caches_are_left_alone(shards: Path) -> None:
    build(shards, 16)
    own = shards / "cache" / "own.images"
    own.write_bytes(b"x" * 9000)
    os.utime(own, (0, 0))
    build(shards, 17, (BYTES[17] + 9000) / 1e9)
    assert own.read_bytes() == b"x" * 9000
    assert len(list((shards / "cache").glob("*.images"))) == 2


def test_nothing_is_removed_as_replaced_where_another_split_has_a_damaged_index(shards: Path) -> None:
    build(shards, 16)
    (shards / "other").mkdir()
    (shards / "other" / "index.json").write_text("{")
    build(shards, 17)
    assert list_sizes(shards) == [16, 17]


def test_a_cache_that_is_removed_while_another_process_waits_for_it_is_built_again(shards: Path) -> None:
    file = build(shards, 16).file
    lock = os.open(name_lock(file), os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    counts: list[int] = []
    waiting = threading.Event()
    with set_sink(log=lambda line: waiting.set() if "waiting" in line else None):
        thread = threading.Thread(target=lambda: counts.append(len(build(shards, 16))))
        thread.start()
        assert waiting.wait(20)
        file.unlink()
        name_lock(file).unlink()
        os.close(lock)
        thread.join()
    assert counts == [IMAGES]
    assert name_lock(file).exists()
