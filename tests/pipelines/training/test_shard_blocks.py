"""A training set that is larger than the cache of remote shards: each shard is fetched once an epoch."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipelines.config.overrides import fingerprinted_settings, read_settings
from pipelines.config.presets import train_preset
from pipelines.training.setup import Training, setup_training, start_processes
from pipelines.training.trainer import open_batches
from shards import remote_prefetch
from shards.progress import set_sink
from shards.remote_folders import locate_shards
from tests.support.overlapping_sets import write_images
from tests.support.pipeline_runs import SMALL_NETWORK
from tests.support.remote_artifacts import measure_cached, write_artifact
from tests.support.remote_reading import use_cache
from tests.support.shard_server import ShardServer, serve_folder

SHARDS, PER_SHARD = 24, 4


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home") / "grefcoco"
    colors = {number: number for number in range(1, 1 + SHARDS * PER_SHARD)}
    write_images(folder, "train", colors, records_per_shard=PER_SHARD, texts=[("left", (0,))])
    write_artifact(folder)
    return folder


@pytest.fixture
def server(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShardServer]:
    with use_cache(tmp_path / "cache", monkeypatch), serve_folder(prepared) as running:
        yield running


def open_training(source: Path, out: Path, *changes: str) -> Training:
    settings = read_settings(train_preset("tiny"), None, [*SMALL_NETWORK, *changes])
    return setup_training(settings, [source], out, start_processes(settings))


def count_tars(server: ShardServer) -> Counter[str]:
    return Counter({name: count for name, count in server.complete.items() if name.endswith(".tar")})


@pytest.mark.parametrize(("workers", "epochs"), [(0, 1), (2, 1), (2, 2)])
def test_a_set_larger_than_the_cache_is_fetched_once_an_epoch(
    prepared: Path, server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, epochs: int
) -> None:
    limit = SHARDS // 2 * max(file.stat().st_size for file in prepared.rglob("*.tar"))
    monkeypatch.setenv("IGVG_CACHE_LIMIT", str(limit))
    changes = (f"epochs={epochs}", "shuffle_block_shards=3", f"workers={workers}")
    training = open_training(locate_shards(server.url), tmp_path / "run", *changes)
    local = [batch.ids for batch in open_batches(open_training(prepared, tmp_path / "local", *changes))]
    remote_prefetch.cancel()
    shutil.rmtree(tmp_path / "cache" / "shards")
    before, seen = count_tars(server), []
    with closing(open_batches(training)) as batches:
        for batch in batches:
            seen.append(batch.ids)
            assert measure_cached(tmp_path / "cache") <= limit
    assert seen == local
    fetched = count_tars(server) - before
    assert len(fetched) == SHARDS
    assert max(fetched.values()) <= epochs


def test_a_training_with_blocks_is_another_one_and_without_them_the_same_as_before() -> None:
    settings, name = train_preset("tiny"), "shuffle_block_shards"
    assert name not in fingerprinted_settings(settings)
    assert fingerprinted_settings(read_settings(settings, None, [f"{name}=4"]))[name] == 4


@pytest.mark.parametrize(
    ("limit", "blocks", "expected"),
    [
        ("40kB", 8, "two blocks of 8 shards take up to"),
        ("40kB", 0, "the shards of the training take 491,520 bytes, and the cache of remote shards has 40,000"),
        ("491520", 0, ""),
    ],
)
def test_a_cache_that_cannot_hold_what_is_needed_at_a_time_is_mentioned(
    server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, blocks: int, expected: str
) -> None:
    monkeypatch.setenv("IGVG_CACHE_LIMIT", limit)
    lines: list[str] = []
    with set_sink(log=lines.append):
        open_training(locate_shards(server.url), tmp_path / "run", f"shuffle_block_shards={blocks}")
    warnings = [line for line in lines if "cache of remote shards" in line]
    assert len(warnings) == bool(expected)
    assert expected in "".join(warnings)
