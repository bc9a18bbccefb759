"""Downloads of shards are shared by processes, continued after an interruption, and never trusted unchecked."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards import remote_folders as folders
from shards.files import digest_file
from shards.reader import ShardReader
from shards.remote_cache import release
from tests.support.paths import ROOT
from tests.support.remote_artifacts import list_cached
from tests.support.remote_reading import list_unfinished, open_quickly, read_all, use_cache, write_prepared
from tests.support.shard_server import ShardServer, serve_folder

SHARD = "val/val-000001.tar"
READ = """
import sys, hashlib
from shards.reader import ShardReader
from shards.remote_folders import locate_shards
reader = ShardReader(locate_shards(sys.argv[1]), "val")
print(hashlib.sha256(b"".join(reader.image(index) for index in range(len(reader)))).hexdigest(), flush=True)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with use_cache(tmp_path / "cache", monkeypatch) as folder:
        yield folder


@pytest.fixture
def server(prepared: Path, tmp_path: Path) -> Iterator[ShardServer]:
    with serve_folder(Path(shutil.copytree(prepared, tmp_path / "served"))) as running:
        yield running


def start_reading(url: str, cache: Path, limit: str = "1GB") -> subprocess.Popen[str]:
    environment = {**os.environ, "IGVG_CACHE": str(cache), "IGVG_CACHE_LIMIT": limit, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", READ, url], env=environment, stdout=subprocess.PIPE, text=True)


def test_several_processes_download_each_shard_once(server: ShardServer, cache: Path) -> None:
    for shard in range(4):
        server.failures[f"val/val-00000{shard}.tar"] = ["delay"]
    processes = [start_reading(server.url, cache) for _ in range(3)]
    outputs = {process.communicate(timeout=60)[0] for process in processes}
    assert len(outputs) == 1
    assert {process.returncode for process in processes} == {0}
    assert {count for name, count in server.requests.items() if name.endswith(".tar")} == {1}


def test_processes_that_share_a_cache_smaller_than_the_set_all_end_also_if_one_is_killed(
    prepared: Path, server: ShardServer, cache: Path
) -> None:
    reader = ShardReader(prepared, "val")
    expected = hashlib.sha256(b"".join(reader.image(index) for index in range(len(reader)))).hexdigest()
    # Each shard has 10 kB, and the limit of bytes holds two of four.
    server.failures["val/val-000002.tar"] = ["slow"] * 9
    killed, *others = (start_reading(server.url, cache, limit="25kB") for _ in range(3))
    deadline = time.monotonic() + 60
    while not server.requests["val/val-000002.tar"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    killed.communicate(timeout=60)
    assert [process.communicate(timeout=60)[0].strip() for process in others] == [expected] * 2
    # Each process may fetch a shard ahead, lose it to others who need room, and fetch it again.
    assert max(server.requests.values()) <= 12
    assert all(digest_file(file) == file.stem for file in list_cached(cache))
    assert read_all(open_quickly(server.url)) == read_all(reader)


def test_a_process_that_is_killed_leaves_no_damaged_shard(prepared: Path, server: ShardServer, cache: Path) -> None:
    server.failures["val/val-000000.tar"] = ["slow"]
    process = start_reading(server.url, cache)
    deadline = time.monotonic() + 30
    while not (found := list_unfinished(cache / "shards")) or found[0].stat().st_size == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert not list_cached(cache)
    assert len(list_unfinished(cache)) == 1
    assert read_all(open_quickly(server.url)) == read_all(ShardReader(prepared, "val"))
    assert not list_unfinished(cache)


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_is_continued_where_the_server_gives_parts(
    prepared: Path, server: ShardServer, cache: Path, ranges: bool
) -> None:
    server.ranges = ranges
    server.failures[SHARD] = ["truncate"] * 3
    size = (server.folder / SHARD).stat().st_size
    reader = open_quickly(server.url)
    reader.fetches_ahead = False
    assert read_all(reader) == read_all(ShardReader(prepared, "val"))
    assert server.sent[SHARD] == (size if ranges else 3 * (size // 2) + size)
    assert not list_unfinished(cache)


@pytest.mark.parametrize("left", ["beginning", "other bytes", "whole", "whole but other", "longer"])
@pytest.mark.parametrize("failure", ["", "other-range", "unsatisfiable"])
def test_what_a_killed_process_left_is_used_or_removed_and_never_trusted(
    prepared: Path, server: ShardServer, cache: Path, left: str, failure: str
) -> None:
    server.ranges, server.failures[SHARD] = True, [failure] if failure else []
    whole = (server.folder / SHARD).read_bytes()
    contents = {
        "beginning": whole[:7000], "other bytes": bytes(7000), "whole": whole, "whole but other": bytes(len(whole)),
        "longer": whole + b"more",
    }  # fmt: skip
    reader = open_quickly(server.url)
    reader.fetches_ahead = False
    temporary = folders.open_cache().temporary(reader.index.shards[1].sha256)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_bytes(contents[left])
    descriptor = reader.remote_shards[1].open()
    # Before a reader looks at its records, and may fetch a damaged shard again.
    assert os.pread(descriptor, 2 * len(whole), 0) == whole
    release(descriptor)
    assert read_all(reader) == read_all(ShardReader(prepared, "val"))
    assert not list_unfinished(cache)
    if not failure:
        rest = {"beginning": len(whole) - 7000, "whole": 0, "other bytes": 2 * len(whole) - 7000}
        assert server.sent[SHARD] == rest.get(left, len(whole))
