"""igvg prepare as a function: what it publishes, when it refuses, and how it is taken up again."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.settings import PrepareSettings
from pipelines.stages import prepare
from pipelines.stages.artifact import read_artifact
from shards.errors import ArtifactError, DataError
from shards.progress import set_sink
from shards.reader import ShardReader
from tests.support.paths import SHARED
from tests.support.published_set import Published, list_siblings, snapshot

shared_only = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of shared trial data is not here")


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "made" / "shards"


# What is made


def test_the_counts_of_every_split_tell_single_multiple_and_empty_targets_apart(
    published: Published, out: Path
) -> None:
    result = published.prepare(out)
    assert not result.cached
    assert result.counts == {
        "splits": {
            "train": {"pictures": 2, "instances": 2, "expressions": 6, "single": 2, "multiple": 2, "empty": 2},
            "val": {"pictures": 1, "instances": 1, "expressions": 2, "single": 2, "multiple": 0, "empty": 0},
        },
        "skipped": {},
    }
    assert read_artifact(out, "prepare") == result.artifact
    assert not (out / "skipped.json").exists()


def test_the_shards_hold_the_images_bytes_and_the_expressions(published: Published, out: Path) -> None:
    published.prepare(out)
    with ShardReader(out, "train") as reader:
        records = [reader.record(number) for number in range(2)]
        assert reader.image(0) == published.image(7).read_bytes()
    assert [record.image_id for record in records] == [7, 8]
    assert [expression.instances for expression in records[0].expressions] == [(0,), (0,), (0, 1), (0, 1)]
    assert records[1].instances == ()


def test_nothing_lies_beside_a_finished_folder(published: Published, out: Path) -> None:
    published.prepare(out)
    assert list_siblings(out) == ["shards"]


@pytest.mark.parametrize(
    ("settings", "pictures"),
    [({"splits": ("val",)}, {"val": 1}), ({"limit": 1}, {"train": 1, "val": 1}), ({}, {"train": 2, "val": 1})],
)
def test_a_part_of_the_data_set_is_prepared_if_asked_for(
    published: Published, out: Path, settings: dict[str, Any], pictures: dict[str, int]
) -> None:
    result = published.prepare(out, **settings)
    assert {split: counts["pictures"] for split, counts in result.counts["splits"].items()} == pictures


def test_the_progress_counts_the_images_of_all_splits(published: Published, out: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    with set_sink(progress=lambda *call: calls.append(call)):
        prepare.run(PrepareSettings(dataset="grefcoco"), published.annotations, [published.images], out)
    assert calls == [(0, 0, "preparing grefcoco"), (0, 3, "train"), (2, 3, "train"), (2, 3, "val"), (3, 3, "val")]


def test_images_are_looked_for_in_every_folder(published: Published, out: Path, tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    published.image(9).rename(tmp_path / "val2017" / "000000000009.jpg")
    result = prepare.run(
        PrepareSettings(dataset="grefcoco"), published.annotations, [published.images, tmp_path / "val2017"], out,
    )  # fmt: skip
    assert result.counts["splits"]["val"]["pictures"] == 1


# Running again


def test_a_second_run_finds_the_work_done_and_touches_nothing(published: Published, out: Path) -> None:
    first = published.prepare(out)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    second = published.prepare(out, workers=4)
    assert second.cached
    assert second.artifact == first.artifact
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


def test_the_paths_of_the_files_do_not_matter(published: Published, out: Path, tmp_path: Path) -> None:
    published.prepare(out)
    published.images = published.images.rename(tmp_path / "pictures")
    published.annotations = published.annotations.rename(tmp_path / "annotations")
    assert published.prepare(out).cached


@pytest.mark.parametrize("number", range(4))
def test_changed_inputs_or_settings_are_named_and_nothing_is_replaced(
    published: Published, out: Path, number: int
) -> None:
    published.prepare(out)
    before = snapshot(out)
    settings: dict[str, Any] = {}
    if number == 0:
        settings, words = {"limit": 1}, "limit 0 → 1"
    elif number == 1:
        published.refs[0]["sentences"][0]["raw"], words = "another", r"input grefs\(unc\)\.json differs"
    elif number == 2:
        published.instances["info"], words = "new", r"input instances\.json differs"
    else:
        (published.images / "000000000123.jpg").touch()
        words = "input pictures differs"
    published.save()
    with pytest.raises(ArtifactError, match=words):
        published.prepare(out, **settings)
    assert snapshot(out) == before


def test_force_replaces_a_finished_folder_all_at_once(published: Published, out: Path) -> None:
    published.prepare(out)
    result = published.prepare(out, force=True, limit=1)
    assert not result.cached
    assert result.counts["splits"]["train"]["pictures"] == 1
    assert list_siblings(out) == ["shards"]


def test_if_a_forced_run_fails_the_old_folder_stays_whole(published: Published, out: Path) -> None:
    published.prepare(out)
    before = snapshot(out)
    published.image(9).write_bytes(b"no picture at all")
    with pytest.raises(DataError, match="not an image"):
        published.prepare(out, force=True)
    assert snapshot(out) == before
    assert list_siblings(out) == ["shards"]


def test_a_foreign_folder_is_left_alone(published: Published, out: Path) -> None:
    out.mkdir(parents=True)
    (out / "letter.txt").write_text("dear")
    with pytest.raises(ArtifactError, match="holds files that igvg did not make"):
        published.prepare(out, force=True)
    assert list_siblings(out) == ["shards"]


class _StoppedError(Exception):
    """As if Ctrl-C had been pressed."""


def _stop(done: int, total: int, remark: str) -> None:
    if done:
        raise _StoppedError


def test_interrupted_work_stays_hidden_and_the_next_run_ends_as_if_undisturbed(
    published: Published, out: Path, tmp_path: Path
) -> None:
    published.prepare(tmp_path / "undisturbed")
    with pytest.raises(_StoppedError), set_sink(progress=_stop):
        prepare.run(PrepareSettings(dataset="grefcoco"), published.annotations, [published.images], out)
    assert list_siblings(out) == [".shards.working"]
    shard = out.parent / ".shards.working" / "train" / "train-000000.tar"
    written = shard.stat().st_mtime_ns
    published.prepare(out)
    assert (out / "train" / "train-000000.tar").stat().st_mtime_ns == written
    assert snapshot(out) == snapshot(tmp_path / "undisturbed")


def test_interrupted_work_of_other_settings_is_thrown_away(published: Published, out: Path, tmp_path: Path) -> None:
    with pytest.raises(_StoppedError), set_sink(progress=_stop):
        prepare.run(PrepareSettings(dataset="grefcoco"), published.annotations, [published.images], out)
    published.prepare(out, splits=("val",))
    assert sorted(path.name for path in out.iterdir()) == ["artifact.json", "val"]


def test_workers_that_are_asked_for_write_shards_and_give_the_same_bytes(tmp_path: Path) -> None:
    """More pictures than one shard holds: a worker has something to do."""
    published = Published(tmp_path)
    picture = published.image(7).read_bytes()
    ids = range(1000, 1501)
    published.instances["images"] = [
        {"id": n, "file_name": f"COCO_train2014_{n:012d}.jpg", "width": 40, "height": 30} for n in ids
    ]
    published.instances["annotations"] = []
    published.refs = [published.make_ref(n, n, [-1], "train") for n in ids]
    for n in ids:
        published.image(n).write_bytes(picture)
    published.save()
    helpers: dict[int, set[int]] = {}
    for workers in (1, 2):
        found = helpers.setdefault(workers, set())

        def look(done: int, total: int, remark: str, found: set[int] = found) -> None:
            found.update(child.pid or 0 for child in multiprocessing.active_children())

        with set_sink(progress=look):
            out = tmp_path / str(workers)
            prepare.run(
                PrepareSettings(dataset="grefcoco"), published.annotations, [published.images], out, workers=workers
            )
    assert not helpers[1]
    assert len(helpers[2]) == 2
    assert [file.name for file in sorted((tmp_path / "1/train").glob("*.tar"))] == [
        "train-000000.tar", "train-000001.tar",
    ]  # fmt: skip
    assert snapshot(tmp_path / "1") == snapshot(tmp_path / "2")


# Trial data


@shared_only
@pytest.mark.parametrize(("dataset", "expressions"), [("grefcoco", 150), ("ref-zom", 59), ("rrefcoco", 232)])
def test_the_annotations_of_the_golden_metrics_are_prepared(dataset: str, expressions: int, out: Path) -> None:
    folder = SHARED / "goldens" / "metrics" / "annotations"
    result = prepare.run(
        PrepareSettings(dataset=dataset), folder / dataset, [folder / "train2014"], out,
    )  # fmt: skip
    assert sum(counts["expressions"] for counts in result.counts["splits"].values()) == expressions


@shared_only
@pytest.mark.parametrize(
    ("dataset", "expressions"), [("refcoco", 102), ("refcoco+", 96), ("refcocog", 24), ("grefcoco", 23)]
)
def test_the_real_trial_data_are_prepared(dataset: str, expressions: int, out: Path) -> None:
    result = prepare.run(
        PrepareSettings(dataset=dataset), SHARED / "real" / dataset, [SHARED / "real" / "train2014"], out,
    )  # fmt: skip
    assert sum(counts["expressions"] for counts in result.counts["splits"].values()) == expressions
