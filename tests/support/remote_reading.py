"""Remote folders as a process reads them that has read none before, with a cache of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shards import remote_folders, remote_prefetch
from shards.reader import ShardReader
from shards.remote_folders import Retries, locate_shards
from tests.support.remote_artifacts import write_artifact
from tests.support.tiny_shards import make_items, write_items

FAST = Retries(attempts=4, wait=0.01, timeout=0.5)


@contextlib.contextmanager
def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Inside, shards are cached in this folder, and nothing is known of addresses that were read before."""
    monkeypatch.setenv("IGVG_CACHE", str(folder))
    remote_folders._folders.clear()
    remote_folders._fetched.clear()
    yield folder
    remote_prefetch.cancel()


def write_prepared(folder: Path) -> Path:
    """Seven images in four shards, one of them without an expression."""
    write_items(folder, make_items(folder / "images", [2, 0, 3, 1, 1, 2, 1]))
    write_artifact(folder)
    return folder


def open_quickly(url: str, split: str = "val") -> ShardReader:
    """A reader of an address that waits for no more than a second."""
    folder = locate_shards(url)
    remote_folders._folders[folder] = replace(remote_folders._folders[folder], retries=FAST)
    return ShardReader(folder, split)


def read_all(reader: ShardReader) -> list[tuple[object, bytes]]:
    return [(reader.record(index), reader.image(index)) for index in range(len(reader))]


def list_unfinished(cache: Path) -> list[Path]:
    return [file for file in cache.rglob("*") if file.name.endswith(".tmp")]
