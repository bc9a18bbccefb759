"""Answers that are no file end in one line that says what came instead and what helps."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards import remote_prefetch as prefetch
from shards.errors import DataError
from shards.reader import ShardReader
from tests.support.remote_artifacts import list_cached
from tests.support.remote_reading import list_unfinished, open_quickly, read_all, use_cache, write_prepared
from tests.support.shard_server import ShardServer, serve_folder

SHARD = "val/val-000000.tar"
PAGE = "which is an HTML page; the download answered with a page, perhaps a login"
COMPRESSED = "the server compresses it (Content-Encoding: gzip); let the server give its files as they are"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("home") / "a \u00fc%20 #?")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with use_cache(tmp_path / "cache", monkeypatch) as folder:
        yield folder


@pytest.fixture
def server(prepared: Path, cache: Path) -> Iterator[ShardServer]:
    with serve_folder(prepared) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "failure", "why"),
    [
        (SHARD, "page", f"48 of 10,240 bytes came, {PAGE}"),
        ("val/index.json", "page", PAGE),
        ("artifact.json", "page", "is an HTML page, not JSON; check the address and your access"),
        (SHARD, "gzip", COMPRESSED),
        ("artifact.json", "gzip", COMPRESSED),
        (SHARD, "redirect", "answered 302 Found, a redirect without end or to no HTTP address"),
        (SHARD, 401, "answered 401 Unauthorized; check the folder's address, and give https://USER:PASSWORD@HOST/FOLDER"),
        (SHARD, "corrupt", "SHA-256 differs from the recorded one; run the same command again; if that fails, too,"),
    ],
)  # fmt: skip
def test_what_came_instead_of_a_file_is_said(
    name: str, failure: str | int, why: str, server: ShardServer, cache: Path
) -> None:
    server.always(name, failure)
    with pytest.raises(DataError) as error:
        open_quickly(server.url).record(0)
    line = str(error.value)
    assert line.startswith(f"{server.url}/{name}: cannot be fetched, ")
    assert why in line
    prefetch.cancel()
    assert not list_unfinished(cache)
    assert SHARD[4:] not in {file.name for file in list_cached(cache)}


def test_a_password_or_signature_that_is_refused_is_named_and_not_shown(server: ShardServer) -> None:
    server.always("artifact.json", 403)
    for address in (server.url.replace("//", "//anna:geheim123@"), f"{server.url}?signature=geheim123"):
        with pytest.raises(
            DataError, match=r"403 Forbidden; check .* address, and its user name and password or"
        ) as error:
            open_quickly(address)
        assert "geheim123" not in str(error.value)


def test_https_asked_of_a_server_of_plain_http_is_said(server: ShardServer) -> None:
    with pytest.raises(DataError, match=r"no secure connection \(\w+\); if the server speaks plain HTTP, give http://"):
        open_quickly(server.url.replace("http:", "https:"))


def test_a_store_that_connects_at_once_is_named_by_its_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(DataError) as error:
            open_quickly(f"ftp://anna:geheim123@127.0.0.1:{free.getsockname()[1]}/set")
    assert str(error.value).startswith("ftp://***@127.0.0.1:")
    assert "refused" in str(error.value)
    assert "geheim123" not in str(error.value)


@pytest.mark.parametrize(
    "folder", ["a%20%C3%BC%2520%20%23%3F", "a%20%C3%BC%2520%20%23%3F/", "a%20\u00fc%2520%20%23%3F"]
)
def test_a_folder_of_any_name_is_read(folder: str, prepared: Path, cache: Path) -> None:
    with serve_folder(prepared.parent) as server:
        reader = open_quickly(f"{server.url}/{folder}")
        assert read_all(reader) == read_all(ShardReader(prepared, "val"))
