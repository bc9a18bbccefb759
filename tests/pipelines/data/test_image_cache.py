"""Image caches: the same bits as decoding, whatever happens to the file and to the processes that build it."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines.data.datasets import GroundingDataset, read_texts
from pipelines.data.image_cache import ImageCache, describe_cache, find_cache, find_damage
from pipelines.data.image_cache_building import build_caches, cache_folder
from pipelines.data.loader import load_batches
from pipelines.data.processor import Processor
from pipelines.data.tokenizer import train_tokenizer
from shards.errors import DataError
from shards.progress import set_sink
from shards.reader import ShardReader
from tests.support.drawn_shards import write_noise
from tests.support.launched_processes import environment

SIDE = 16
IMAGES = 30
BUILD = """
import sys
from pathlib import Path
from pipelines.data.image_cache_building import cache_folder
from shards.progress import set_sink
with set_sink(log=lambda line: print(line, flush=True)):
    cache_folder(Path(sys.argv[1]), int(sys.argv[2]), limit=1, workers=int(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("noise") / "drawn", images=IMAGES)


@pytest.fixture
def shards(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "shards"))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged."""
    found: list[str] = []
    with set_sink(log=found.append):
        yield found


def open_data(shards: Path, *, cached: bool) -> GroundingDataset:
    tokenizer = train_tokenizer(read_texts([(shards, "val")]), 64)
    processor = Processor(tokenizer=tokenizer, max_tokens=8, image_size=SIDE)
    data = GroundingDataset([(shards, "val")], processor, mask_size=SIDE)
    if cached:
        data.caches = build(shards)
    return data


def build(shards: Path, limit: float = 1, size: int = SIDE) -> list[ImageCache]:
    return build_caches([ShardReader(shards, "val")], size, limit=limit, workers=0)


def find(shards: Path) -> Path:
    (file,) = (shards / "cache").glob("*.images")
    return file


def assert_same(shards: Path) -> None:
    """Every image is the decoded one, whether it is in the cache or not."""
    with_cache, without = open_data(shards, cached=False), open_data(shards, cached=False)
    layout = describe_cache(with_cache.readers[0].index, SIDE)
    with_cache.caches = [ImageCache(find_cache(shards, layout), layout)]
    for index in range(len(without)):
        np.testing.assert_array_equal(with_cache[index].image, without[index].image)


def overwrite(file: Path, offset: int, data: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_are_the_same_to_the_bit_with_and_without_a_cache(shards: Path, workers: int) -> None:
    indices = np.random.default_rng(0).permutation(4 * IMAGES).reshape(-1, 6)
    decoded = load_batches(open_data(shards, cached=False), indices, workers=0)
    cached = load_batches(open_data(shards, cached=True), indices, workers=workers)
    for one, other in zip(decoded, cached, strict=True):
        assert one.ids == other.ids
        assert one.targets is not None
        assert other.targets is not None
        pairs = [
            (one.pixel_values, other.pixel_values), (one.input_ids, other.input_ids),
            (one.targets.global_masks, other.targets.global_masks),
            *zip(one.targets.instance_masks, other.targets.instance_masks, strict=True),
            *zip(one.targets.boxes, other.targets.boxes, strict=True),
        ]  # fmt: skip
        assert all(torch.equal(*pair) for pair in pairs)


def test_a_complete_cache_is_read_without_the_image_files(shards: Path) -> None:
    data = open_data(shards, cached=True)
    expected = [open_data(shards, cached=False)[index].image for index in (0, 50)]
    (tar,) = (shards / "val").glob("*.tar")
    tar.write_bytes(tar.read_bytes().replace(b"IHDR", b"IHDX"))
    for index, image in zip((0, 50), expected, strict=True):
        np.testing.assert_array_equal(data[index].image, image)


def test_the_size_is_said_before_a_cache_is_built(shards: Path, lines: list[str]) -> None:
    build(shards)
    build(shards)
    assert f"{IMAGES} images, 0.03 MB, {IMAGES} of them are to be decoded" in lines[0]
    assert lines[1].endswith("complete")


def test_other_sizes_and_other_shards_have_another_file(shards: Path, tmp_path: Path) -> None:
    other = write_noise(tmp_path / "other", images=IMAGES - 1)
    names = {
        describe_cache(ShardReader(folder, "val").index, size).name for folder in (shards, other) for size in (8, 9)
    }
    assert len(names) == 4
    build(shards, size=8)
    build(shards, size=9)
    assert len(list((shards / "cache").glob("*.images"))) == 2


@pytest.mark.parametrize("offset", [0, 30, 4096, 4100, 8192, 8200, -1])
def test_of_a_damaged_cache_no_pixel_is_used_and_the_next_build_mends_it(shards: Path, offset: int) -> None:
    build(shards)
    file, intact = find(shards), find(shards).read_bytes()
    place = offset % len(intact)
    overwrite(file, place, bytes([intact[place] ^ 1]))
    assert_same(shards)
    build(shards)
    assert find(shards).read_bytes() == intact


def test_damage_after_an_images_first_use_is_found_by_the_next_process_and_by_verification(shards: Path) -> None:
    (cache,) = build(shards)
    intact = cache.read(0)
    assert intact is not None
    overwrite(find(shards), 8192, bytes([intact[0, 0, 0] ^ 1]))
    again, next_process = cache.read(0), pickle.loads(pickle.dumps(ImageCache(cache.file, cache.layout)))
    assert again is not None
    assert np.count_nonzero(again != intact) == 1
    assert "is damaged at image 0" in find_damage(cache.file)
    assert next_process.read(0) is None


def test_a_damaged_image_is_named_once(shards: Path, lines: list[str]) -> None:
    data = open_data(shards, cached=True)
    overwrite(find(shards), 8192, b"\1\2\3" * 5000)
    for index in range(40):
        data[index]
    assert [line for line in lines if "is damaged at image 0" in line and str(find(shards)) in line] == lines[1:]


@pytest.mark.parametrize("size", [0, 100, 4096, 5000, 8192, 10000, 20000])
def test_a_cache_that_was_cut_short_is_completed(shards: Path, size: int) -> None:
    data = open_data(shards, cached=True)
    data[0]
    file, intact = find(shards), find(shards).read_bytes()
    os.truncate(file, size)
    without = open_data(shards, cached=False)
    for index in range(0, len(data), 3):
        np.testing.assert_array_equal(data[index].image, without[index].image)
    assert_same(shards)
    build(shards)
    assert find(shards).read_bytes() == intact


@pytest.mark.parametrize(
    ("offset", "words"),
    [(1, "damaged header"), (-1, "is damaged at image 29"), (8192, "is damaged at image 0"), (4096 + 8, "at image 1;")],
)
def test_verification_names_what_is_damaged(shards: Path, offset: int, words: str) -> None:
    build(shards)
    file = find(shards)
    assert find_damage(file) == ""
    place = offset % file.stat().st_size
    overwrite(file, place, bytes([file.read_bytes()[place] ^ 1]))
    assert words in find_damage(file)
    os.truncate(file, 9000)
    assert find_damage(file)


def test_preparing_a_cache_again_checks_every_image(shards: Path) -> None:
    build(shards)
    intact = find(shards).read_bytes()
    overwrite(find(shards), 9000, b"\1\2\3")
    cache_folder(shards, SIDE, limit=1, workers=0)
    assert find(shards).read_bytes() == intact


def test_a_limit_bounds_the_file_and_a_higher_one_extends_it(shards: Path, lines: list[str]) -> None:
    for limit in (0.0, 8e-6, 15e-6, 1.0):
        build(shards, limit=limit)
        assert sum(file.stat().st_size for file in (shards / "cache").glob("*.images")) <= limit * 1e9
        assert_same(shards)
    assert "none of its 30 images fits" in lines[0]
    assert "8 images" in lines[2]
    assert "22 more do not fit the limit" in lines[2]
    complete = find(shards).read_bytes()
    shutil.rmtree(shards / "cache")
    build(shards)
    assert find(shards).read_bytes() == complete


def test_the_limit_is_that_of_all_splits_together(shards: Path) -> None:
    readers = [ShardReader(shards, "val")] * 2
    caches = build_caches(readers, SIDE, limit=20e-6, workers=0)
    assert caches[0].layout.fit(20_000) < IMAGES
    assert len(caches[0]) == 15


def test_a_disk_without_space_is_one_line(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match=r"needs 0\.02 MB more, and the disk has 0\.00 MB left.*cache_limit"):
        build(shards)


def test_data_with_caches_can_be_sent_to_another_process(shards: Path) -> None:
    data = open_data(shards, cached=True)
    data[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data))[1].image, data[1].image)


def start_build(shards: Path, size: int = SIDE, workers: int = 2) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", BUILD, str(shards), str(size), str(workers)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment(), start_new_session=True)


def test_a_build_that_is_killed_goes_on_and_ends_with_the_same_bytes(shards: Path) -> None:
    size = 900
    build(shards, size=size)
    expected = find(shards).read_bytes()
    shutil.rmtree(shards / "cache")
    layout = describe_cache(ShardReader(shards, "val").index, size)
    for least in (1, 12):
        process = start_build(shards, size)
        while process.poll() is None and len(ImageCache(find_cache(shards, layout), layout)) < least:
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert len(ImageCache(find_cache(shards, layout), layout)) >= least
    build(shards, size=size)
    assert find(shards).read_bytes() == expected
    assert not [file for file in (shards / "cache").iterdir() if file.name.endswith(".tmp")]


def test_of_two_builds_at_once_one_works_and_the_other_waits(shards: Path) -> None:
    processes = [start_build(shards, 900, workers=0) for _ in range(2)]
    outputs = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    said = "".join(outputs)
    assert said.count("are to be decoded") == 1
    assert said.count("complete") == 1
    assert len(ImageCache(find(shards), describe_cache(ShardReader(shards, "val").index, 900))) == IMAGES


AS_READER = """
import encodings.utf_8_sig, os, sys
from pathlib import Path
import pipelines.data.image_reading
from PIL import Image
from pipelines.data.image_cache_building import build_caches
from shards.progress import set_sink
from shards.reader import ShardReader
Image.init()
readers = [ShardReader(Path(sys.argv[1]), "val")]
os.setuid(12345)
with set_sink(log=lambda line: print(line, flush=True)):
    print([len(cache) for cache in build_caches(readers, int(sys.argv[2]), limit=1, workers=0)])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_cache_is_read_where_it_cannot_be_written(shards: Path) -> None:
    cache_folder(shards, SIDE, limit=1, workers=0)
    for folder in (shards, *shards.parents):
        if folder.stat().st_uid == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    for size, count in ((SIDE, IMAGES), (2 * SIDE, 0)):
        command = [sys.executable, "-c", AS_READER, str(shards), str(size)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=False)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"[{count}]"), done.stderr
        assert f"cannot be written; {count} of {IMAGES} images are in it" in done.stdout


def test_processors_whose_kernels_round_differently_have_another_file(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    (reader,) = open_data(shards, cached=False).readers
    layout = describe_cache(reader.index, SIDE)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    fused = "avx2" in Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    assert (describe_cache(reader.index, SIDE) != layout) == fused


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.images", b"[" * 4096),
        ("val-8-5.images", b'{"size":8,"images":2,"key":5}'),
        ("a.images", b'{"size":Infinity,"images":2,"key":"x"}'),
        ("val-8-x.images", b'{"size":8,"images":1000000000000000,"key":"x"}'),
        ("val-8-y.images", b'{"size":8,"images":-5,"key":"y"}'),
        ("val-100000000-y.images", b'{"size":100000000,"images":1,"key":"y"}'.ljust(4096) + b"\xff" * 4096),
    ],
)
def test_verification_survives_every_header(name: str, header: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(header.ljust(4096))
    assert find_damage(tmp_path / name)


def test_names_of_splits_may_look_like_sizes(tmp_path: Path) -> None:
    file = tmp_path / "a-8-b-8-y.images"
    file.write_bytes(b'{"size":8,"images":1,"key":"y"}'.ljust(4096) + bytes(4096))
    assert find_damage(file) == ""


def test_no_limit_is_a_limit(shards: Path) -> None:
    assert len(build(shards, limit=float("inf"))[0]) == IMAGES
