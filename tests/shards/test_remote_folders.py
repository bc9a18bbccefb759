"""Remote folders are read as folders on this machine are, whatever the server does."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pickle
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shards import remote_folders as folders
from shards import remote_prefetch as prefetch
from shards.errors import DataError, SettingsError
from shards.files import digest_file
from shards.index import list_splits
from shards.reader import ShardReader
from shards.remote_folders import locate_shards
from tests.support.remote_artifacts import list_cached, measure_cached, write_artifact
from tests.support.remote_reading import list_unfinished, open_quickly, read_all, use_cache, write_prepared
from tests.support.shard_server import ShardServer, serve_folder
from tests.support.tiny_shards import make_items, write_items

SHARD = "val/val-000001.tar"


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


def test_a_remote_folder_is_read_as_the_local_one(prepared: Path, server: ShardServer, cache: Path) -> None:
    remote = open_quickly(server.url)
    assert list_splits(locate_shards(server.url)) == ["val"]
    assert read_all(remote) == read_all(ShardReader(prepared, "val"))
    assert {digest_file(file) for file in list_cached(cache)} == {entry.sha256 for entry in remote.index.shards}
    assert set(server.requests.values()) == {1}


def test_nothing_is_fetched_before_it_is_needed(server: ShardServer) -> None:
    folder = locate_shards(server.url)
    assert not server.requests
    reader = ShardReader(folder, "val")
    assert set(server.requests) == {"artifact.json", "val/index.json"}
    reader.record(len(reader) - 1)
    assert set(server.requests) == {"artifact.json", "val/index.json", "val/val-000003.tar"}


def test_the_shards_that_follow_are_fetched_ahead(server: ShardServer) -> None:
    reader = open_quickly(server.url)
    reader.record(0)
    deadline = time.monotonic() + 5
    while server.complete["val/val-000002.tar"] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.complete == dict.fromkeys(("artifact.json", "val/index.json"), 1) | {
        f"val/val-00000{shard}.tar": 1 for shard in range(3)
    }


@pytest.mark.parametrize(
    "failure",
    [404, 403, 500, 503, "truncate", "corrupt", "longer", "wrong-length", "shorter-length", "silent", "close", "delay"],
)
def test_a_server_that_fails_twice_changes_nothing(
    failure: int | str, prepared: Path, server: ShardServer, cache: Path
) -> None:
    for name in (SHARD, "artifact.json", "val/index.json"):
        server.failures[name] = [failure] * (1 if failure in ("silent", 404, 403) else 2)
    reader = open_quickly(server.url)
    assert read_all(reader) == read_all(ShardReader(prepared, "val"))
    prefetch.cancel()
    assert not list_unfinished(cache)


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (404, "the server answered 404 Not Found"),
        (500, "the server answered 500 Internal Server Error"),
        ("truncate", "the connection ended 5,120 bytes before the end"),
        ("shorter-length", "5,120 of 10,240 bytes came"),
        ("corrupt", "its SHA-256 differs"),
        ("longer", "more than 10,240 bytes came"),
        ("trickle", "bytes came in"),
        ("silent", "no answer for 0.5 seconds"),
        ("close", "closed connection"),
    ],
)
def test_a_server_that_fails_on_is_named_with_the_shard(
    failure: int | str, why: str, server: ShardServer, cache: Path
) -> None:
    server.always(SHARD, failure)
    reader = open_quickly(server.url)
    with pytest.raises(DataError) as error:
        read_all(reader)
    message = str(error.value)
    assert message.startswith(f"{server.url}/{SHARD}: cannot be fetched, ")
    assert why in message
    assert "\n" not in message
    prefetch.cancel()
    # What has come is continued later, and what is no part of the shard is not kept.
    kept = list_unfinished(cache / "shards")
    assert len(kept) == (failure in ("truncate", "shorter-length", "trickle"))
    whole = (server.folder / SHARD).read_bytes()
    assert all(0 < len(file.read_bytes()) < len(whole) and whole.startswith(file.read_bytes()) for file in kept)
    assert not list_unfinished(cache / "folders")
    assert len(list_cached(cache)) <= 3


def test_credentials_are_sent_and_never_shown(server: ShardServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.always("val/index.json", 500)
    with pytest.raises(DataError) as error:
        open_quickly(f"http://anna:geheim123@127.0.0.1:{server.port}?signature=s3cr3tvalue")
    assert "geheim123" not in str(error.value)
    assert "s3cr3tvalue" not in str(error.value)
    assert f"http://***@127.0.0.1:{server.port}/val/index.json?***" in str(error.value)
    assert "Basic YW5uYTpnZWhlaW0xMjM=" in [headers.get("Authorization") for headers in server.headers]


def test_what_was_fetched_is_not_fetched_again(server: ShardServer) -> None:
    read_all(open_quickly(server.url))
    folders._fetched.clear()
    before = server.requests.copy()
    read_all(open_quickly(server.url))
    assert server.requests - before == {"artifact.json": 1}


def test_a_changed_folder_is_read_as_it_is_now(server: ShardServer, tmp_path: Path) -> None:
    read_all(open_quickly(server.url))
    shutil.rmtree(server.folder / "val")
    write_items(server.folder, make_items(tmp_path / "images", [1, 2, 3]))
    write_artifact(server.folder)
    folders._fetched.clear()
    assert read_all(open_quickly(server.url)) == read_all(ShardReader(server.folder, "val"))


def test_a_process_reads_one_version_of_a_set_that_is_replaced_meanwhile(server: ShardServer, tmp_path: Path) -> None:
    before = read_all(open_quickly(server.url))
    fetched = dict(folders._fetched)
    shutil.rmtree(server.folder / "val")
    write_items(server.folder, make_items(tmp_path / "images", [1, 2, 3]))
    write_artifact(server.folder)
    folders._fetched.clear()
    assert len(read_all(open_quickly(server.url))) == 3
    # The process that began before.
    folders._fetched.update(fetched)
    assert read_all(open_quickly(server.url)) == before
    shutil.rmtree(folders.open_cache().folder)
    prefetch.cancel()
    with pytest.raises(DataError, match=r"bytes came|SHA-256 differs"):
        read_all(open_quickly(server.url))
    folders._fetched.clear()
    assert read_all(open_quickly(server.url)) == read_all(ShardReader(server.folder, "val"))


def test_a_shard_that_was_damaged_in_the_cache_is_fetched_again(
    prepared: Path, server: ShardServer, cache: Path
) -> None:
    read_all(open_quickly(server.url))
    whole = {file: file.read_bytes() for file in list_cached(cache)}
    for file, data in whole.items():
        file.write_bytes(bytes(byte ^ 1 for byte in data))
    assert read_all(open_quickly(server.url)) == read_all(ShardReader(prepared, "val"))
    prefetch.cancel()
    list_cached(cache)[0].write_bytes(b"short")
    assert read_all(open_quickly(server.url)) == read_all(ShardReader(prepared, "val"))
    assert {file: file.read_bytes() for file in list_cached(cache)} == whole


def test_the_cache_stays_within_its_limit(
    prepared: Path, server: ShardServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IGVG_CACHE_LIMIT", "30kB")
    monkeypatch.setattr("shards.reader._MAX_OPEN_REMOTE", 1)
    reader = open_quickly(server.url)
    for _ in range(2):
        for index in range(len(reader)):
            assert reader.image(index) == ShardReader(prepared, "val").image(index)
            assert measure_cached(cache) <= 30_000


def test_the_shard_that_was_opened_longest_ago_goes_and_none_that_is_open(server: ShardServer, cache: Path) -> None:
    reader = open_quickly(server.url)
    names = [folders.open_cache().file(entry.sha256).name for entry in reader.index.shards]
    read_all(reader)
    prefetch.cancel()
    reader.close()
    for age, name in enumerate(names):
        os.utime(cache / "shards" / name, (age, age))
    reader.record(0)
    prefetch.cancel()
    os.utime(cache / "shards" / names[0], (0, 0))
    replace(folders.open_cache(), limit=25_000).make_room(0)
    assert {file.name for file in list_cached(cache)} == {names[0], names[3]}
    reader.close()
    replace(folders.open_cache(), limit=0).make_room(0)
    assert not list_cached(cache)


def test_a_reader_moves_to_another_process(prepared: Path, server: ShardServer) -> None:
    reader = pickle.loads(pickle.dumps(open_quickly(server.url)))
    folders._folders.clear()
    assert read_all(reader) == read_all(ShardReader(prepared, "val"))


def test_a_cache_on_a_file_system_without_locks_is_one_line(
    server: ShardServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(SettingsError, match=r"on a file system without locks \(No locks.*; set IGVG_CACHE to a folder"):
        read_all(open_quickly(server.url))
    assert not list_cached(cache)


def test_a_folder_without_its_artifact_is_one_line(server: ShardServer) -> None:
    (server.folder / "artifact.json").unlink()
    with pytest.raises(DataError, match=r"cannot be fetched.*404.*that of a folder with the artifact.json"):
        open_quickly(server.url)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("artifact.json", b"<html>login</html>", "JSON"),
        ("artifact.json", b"[]", "is no JSON object"),
        ("artifact.json", b'{"files": {"../val/index.json": 3, "/x/index.json": 3}}', "holds no prepared split"),
        ("artifact.json", b'{"files": {"val/index.json": 3}}', "of 3 bytes came"),
        ("artifact.json", b'{"files": {"val/index.json": null}, "digests": {"val/index.json": "00"}}', "SHA-256"),
        ("artifact.json", b'{"files": {"val/index.json": 3}, "digests": {"val/index.json": "/../x"}}', "SHA-256"),
    ],
)
def test_documents_that_are_none_are_refused(
    name: str, content: bytes, why: str, server: ShardServer, cache: Path
) -> None:
    (server.folder / name).write_bytes(content)
    if b'"val/index.json": 3' in content:
        (server.folder / "val" / "index.json").write_bytes(b"ab")
    with pytest.raises(DataError, match=why) as error:
        open_quickly(server.url)
    assert server.url in str(error.value)
    assert str(cache) not in str(error.value)


def test_an_index_cannot_name_files_elsewhere(server: ShardServer, tmp_path: Path) -> None:
    file = server.folder / "val" / "index.json"
    document = json.loads(file.read_bytes())
    document["shards"][0]["sha256"] = "../../../owned"
    file.write_text(json.dumps(document), encoding="utf-8")
    write_artifact(server.folder)
    with pytest.raises(DataError, match="SHA-256 of shard val-000000"):
        open_quickly(server.url)


def test_fsspec_reads_what_is_not_http(prepared: Path, server: ShardServer) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(prepared), "/bucket/set", recursive=True)
    expected = read_all(ShardReader(prepared, "val"))
    assert read_all(open_quickly("memory://bucket/set")) == expected
    shutil.rmtree(folders.open_cache().folder)
    assert read_all(open_quickly(prepared.as_uri())) == expected
    with pytest.raises(DataError, match=r"memory://bucket/none/artifact.json: .*there is no such file"):
        open_quickly("memory://bucket/none")
