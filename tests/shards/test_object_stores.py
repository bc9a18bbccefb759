"""Shards in object stores and on the hub are read through s3fs, gcsfs and huggingface_hub as those on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gcsfs
import pytest
import s3fs
from gcsfs.retry import HttpError

from shards import remote_folders as folders
from shards.errors import DataError
from shards.reader import ShardReader
from shards.remote_chunks import _explain_store
from shards.remote_folders import Retries, locate_shards
from tests.support.hub_server import TOKEN, serve_hub
from tests.support.object_stores import ObjectStore, serve_google, serve_s3
from tests.support.paths import ROOT
from tests.support.remote_reading import use_cache, write_prepared

SHARD = "set/val/val-000001.tar"
READ = """
import sys
from shards.errors import DataError
from shards.reader import ShardReader
from shards.remote_folders import locate_shards
try:
    reader = ShardReader(locate_shards(sys.argv[1]), "val")
    sys.stdout.buffer.write(b"".join(reader.image(index) for index in range(len(reader))))
except DataError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with use_cache(tmp_path / "cache", monkeypatch) as folder:
        yield folder


@pytest.fixture
def s3(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with serve_s3() as store:
        store.add_folder("bucket", "set", prepared)
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield store


@pytest.fixture
def google(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with serve_google() as store:
        store.add_folder("bucket", "set", prepared)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", store.address)
        gcsfs.GCSFileSystem.clear_instance_cache()
        yield store


def read_images(folder: Path, split: str = "val") -> bytes:
    reader = ShardReader(folder, split)
    reader.fetches_ahead = False
    return b"".join(reader.image(index) for index in range(len(reader)))


def locate_quickly(url: str) -> Path:
    folder = locate_shards(url)
    folders._folders[folder] = replace(folders._folders[folder], retries=Retries(attempts=4, wait=0.01))
    return folder


@pytest.mark.parametrize("status", [503, 403, 404])
@pytest.mark.parametrize("kind", ["s3", "google"])
def test_an_object_store_that_fails_twice_changes_nothing(
    kind: str, status: int, prepared: Path, request: pytest.FixtureRequest
) -> None:
    store: ObjectStore = request.getfixturevalue(kind)
    store.failures[SHARD] = [status] * 2
    url = f"{'s3' if kind == 's3' else 'gs'}://bucket/set"
    assert read_images(locate_quickly(url)) == read_images(prepared)


@pytest.mark.parametrize("kind", ["s3", "google"])
def test_what_an_object_store_refuses_is_one_line(
    kind: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    store: ObjectStore = request.getfixturevalue(kind)
    scheme = "s3" if kind == "s3" else "gs"
    for address in ("missing/set", "bucket/none"):
        with pytest.raises(
            DataError, match=f"^{scheme}://{address}/artifact.json: cannot be fetched, 3 .*no such file"
        ):
            read_images(locate_quickly(f"{scheme}://{address}"))
    store.failures[SHARD] = [403] * 1000
    with pytest.raises(DataError, match=f"^{scheme}://bucket/{SHARD}: cannot be fetched, 3 .*(403|Forbidden)") as error:
        read_images(locate_quickly(f"{scheme}://bucket/set"))
    assert "\n" not in str(error.value)
    assert not [line.getMessage() for line in caplog.records if line.name.split(".")[0] in ("fsspec", "gcsfs", "s3fs")]


@pytest.mark.parametrize(
    ("status", "refused"), [(401, True), (403, True), (404, True), (410, True), (429, False), (500, False)]
)
def test_what_a_library_tells_by_a_status_is_refused_or_tried_again(status: int, refused: bool) -> None:
    answer = SimpleNamespace(status_code=status)
    for error in (OSError("of the hub"), HttpError({"code": status, "message": "of gcsfs"})):
        if not isinstance(error, HttpError):
            error.response = answer  # type: ignore[attr-defined]
        explained = _explain_store(error, "gs://bucket/set")
        assert explained.what.startswith(f"the server answered {status} ")
        assert explained.refused == refused


def test_wrong_credentials_are_one_line_that_does_not_hold_them(
    s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDWRONG")
    with pytest.raises(
        DataError, match=r"s3://bucket/set/artifact.json: cannot be fetched, 3 .*Forbidden.*your access"
    ) as error:
        read_images(locate_quickly("s3://bucket/set"))
    assert "AKIDWRONG" not in str(error.value)


@pytest.mark.parametrize("kind", ["s3", "google"])
def test_a_shard_whose_beginning_is_there_is_continued(
    kind: str, prepared: Path, request: pytest.FixtureRequest
) -> None:
    store: ObjectStore = request.getfixturevalue(kind)
    folder = locate_quickly(f"{'s3' if kind == 's3' else 'gs'}://bucket/set")
    entry = ShardReader(folder, "val").index.shards[1]
    temporary = folders.open_cache().temporary(entry.sha256)
    temporary.parent.mkdir(parents=True)
    temporary.write_bytes((prepared / "val" / entry.name).read_bytes()[:4000])
    assert read_images(folder) == read_images(prepared)
    (line,) = [line for line in store.requests if line.startswith("GET") and "000001.tar" in line and "bytes=" in line]
    assert line.endswith(f" bytes=4000-{entry.bytes - 1}")


def test_a_data_set_on_the_hub_is_read_and_a_private_one_with_a_token(prepared: Path, tmp_path: Path) -> None:
    def read(url: str, **more: str) -> bytes:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **hub.environment(tmp_path / "home", **more)}
        result = subprocess.run([sys.executable, "-c", READ, url], env=environment, capture_output=True, timeout=60)
        assert (result.returncode, result.stderr) == (0, b"")
        return result.stdout

    with serve_hub() as hub:
        hub.add_folder("datasets/me/set", prepared)
        expected = read_images(prepared)
        assert read("hf://datasets/me/set") == expected
        hub.repos["datasets/me/set"].private = True
        shutil.rmtree(tmp_path / "cache")
        line = read("hf://datasets/me/set").decode()
        assert line.startswith("hf://datasets/me/set/artifact.json: cannot be fetched, 3 attempts failed: ")
        assert "401" in line
        assert line.count("\n") == 1
        assert read("hf://datasets/me/set", HF_TOKEN=TOKEN) == expected
