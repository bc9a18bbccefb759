"""A process that reads remote shards is killed at random moments; the next one reads the same bytes."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shards.files import digest_file
from shards.reader import ShardReader
from tests.support.paths import ROOT
from tests.support.remote_artifacts import list_cached, write_artifact
from tests.support.shard_server import ShardServer, serve_folder
from tests.support.tiny_shards import make_items, write_items

SHARDS = 8
TRIES = 4
READ = """
import sys, hashlib
from shards.reader import ShardReader
from shards.remote_folders import locate_shards
reader = ShardReader(locate_shards(sys.argv[1]), "val")
print(hashlib.sha256(b"".join(reader.image(index) for index in range(len(reader)))).hexdigest(), flush=True)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_items(folder, make_items(folder / "images", [1] * SHARDS), records=1)
    write_artifact(folder)
    return folder


def start_reading(url: str, cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "IGVG_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", READ, url], env=environment, stdout=subprocess.PIPE, text=True)


def slow_down(server: ShardServer) -> None:
    """Give every file in small parts with pauses, so that moments fall into transfers."""
    for shard in range(SHARDS):
        server.failures[f"val/val-{shard:06}.tar"] = ["paused"] * 1000
    server.failures["artifact.json"] = server.failures["val/index.json"] = ["paused"] * 1000


def wait_for_request(server: ShardServer, process: subprocess.Popen[str], before: int) -> None:
    """Wait until there are more requests than before, or the process has ended."""
    while sum(server.requests.values()) == before and process.poll() is None:
        time.sleep(0.005)


def kill_often(prepared: Path, home: Path, kills: int, generator: random.Random) -> None:
    """Kill so many readers at work, at random moments after their first request."""
    killed = 0
    with serve_folder(prepared) as server:
        server.ranges = True
        images = list(server.folder.glob("val/*.tar"))
        reader = ShardReader(prepared, "val")
        expected = hashlib.sha256(b"".join(reader.image(index) for index in range(len(reader)))).hexdigest()
        slow_down(server)
        process = start_reading(server.url, home / "undisturbed")
        wait_for_request(server, process, 0)
        began = time.monotonic()
        assert process.communicate(timeout=60)[0].strip() == expected
        longest = time.monotonic() - began
        for turn in range(TRIES * kills):
            # Some begin with an empty cache, and the others with what was left.
            cache = home / f"cache{turn // 3}"
            slow_down(server)
            before = sum(server.requests.values())
            process = start_reading(server.url, cache)
            wait_for_request(server, process, before)
            time.sleep(generator.uniform(0, longest))
            killed += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
            server.failures.clear()
            # What lies in the cache under its own name is whole.
            assert all(digest_file(file) == file.stem for file in list_cached(cache))
            after = start_reading(server.url, cache)
            output, _ = after.communicate(timeout=60)
            assert after.returncode == 0
            assert output.strip() == expected
            assert {file.stem for file in list_cached(cache)} == {digest_file(file) for file in images}
            assert not list((cache / "shards").glob(".*.tmp"))
            for file in list_cached(cache)[turn % 3 :]:
                file.unlink()
            if killed == kills:
                return
    pytest.fail(f"only {killed} of {TRIES * kills} readers had not ended when they were killed")


def test_a_reader_that_is_killed_at_random_moments_changes_nothing(prepared: Path, tmp_path: Path) -> None:
    kill_often(prepared, tmp_path, 3, random.Random(3))


@pytest.mark.slow
def test_a_reader_that_is_killed_at_25_random_moments_changes_nothing(prepared: Path, tmp_path: Path) -> None:
    kill_often(prepared, tmp_path, 25, random.Random(16))
