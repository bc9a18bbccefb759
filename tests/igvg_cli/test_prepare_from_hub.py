"""igvg prepare --from-hub: annotation files of a data set on the hub, which is a server on the loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.synthetic.writer import write_published
from tests.support.hub_server import Hub, Repo, serve_hub

NAMES = ("grefs(unc).json", "instances.json")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    write_published(folder, seed=3, train_images=4, held_out_images=2)
    return folder


@pytest.fixture
def hub(published: Path) -> Iterator[Hub]:
    files = {name: (published / "grefcoco" / name).read_bytes() for name in NAMES}
    with serve_hub() as running:
        repo = running.repos["datasets/me/refs"] = Repo()
        repo.add(files)
        repo.add({**files, "README.md": b"#", "old/instances.json": b"{}"})
        yield running


def prepare(hub: Hub, home: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "igvg_cli", "prepare", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=100, env=os.environ | hub.environment(home, **environment)
    )


def assert_one_error(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
    assert result.stderr.startswith("Error: ")
    for word in words:
        assert word in result.stderr


def test_shards_of_the_hubs_annotations_are_those_of_the_files_and_the_commit_is_recorded(
    hub: Hub, published: Path, tmp_path: Path
) -> None:
    images = ("--images", published / "images" / "train2014")
    here = prepare(hub, tmp_path, "grefcoco", "--annotations", published / "grefcoco", *images, "--out", tmp_path / "a")
    there = prepare(hub, tmp_path, "grefcoco", "--from-hub", "me/refs", *images, "--out", tmp_path / "b")
    assert (here.returncode, there.returncode) == (0, 0), there.stderr
    first, second = (json.loads((tmp_path / name / "artifact.json").read_bytes()) for name in "ab")
    assert second["counts"].pop("hub") == f"me/refs@{hub.repos['datasets/me/refs'].revisions['main']}"
    assert {**first, "checksum": ""} == {**second, "checksum": ""}
    assert not [line for line in hub.requests if "old/" in line or "README" in line]


def test_a_revision_is_pinned_and_the_cache_serves_a_machine_without_a_network(
    hub: Hub, published: Path, tmp_path: Path
) -> None:
    images, repo = ("--images", published / "images" / "train2014"), hub.repos["datasets/me/refs"]
    first = next(iter(repo.commits))
    arguments = ("grefcoco", "--from-hub", f"me/refs@{first}", *images)
    assert prepare(hub, tmp_path, *arguments, "--out", tmp_path / "a").returncode == 0
    assert json.loads((tmp_path / "a" / "artifact.json").read_bytes())["counts"]["hub"] == f"me/refs@{first}"
    hub.requests.clear()
    result = prepare(hub, tmp_path, *arguments, "--out", tmp_path / "b", HF_HUB_OFFLINE="1")
    assert (result.returncode, hub.requests) == (0, [])
    other = prepare(hub, tmp_path, "grefcoco", "--from-hub", "me/other", *images, "--out", "c", HF_HUB_OFFLINE="1")
    assert_one_error(other, "me/other", "HF_HUB_OFFLINE forbids a download", "download the data set once")


def test_a_repository_without_the_files_is_one_line_that_names_them(hub: Hub, published: Path, tmp_path: Path) -> None:
    hub.repos["datasets/me/other"] = Repo()
    hub.repos["datasets/me/other"].add({"instances.json": b"{}"})
    rest = ("--images", published / "images", "--out", tmp_path / "out")
    assert_one_error(
        prepare(hub, tmp_path, "grefcoco", "--from-hub", "me/other", *rest),
        "me/other on the hub has no grefs(unc).json or grefs(unc).p at its top",
    )
    assert_one_error(prepare(hub, tmp_path, "grefcoco", "--from-hub", "me/none", *rest), "not a data set on http://")
    assert_one_error(prepare(hub, tmp_path, "grefcoco", "--from-hub", "nonsense", *rest), "USER/REPO")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sources", [(), ("--annotations", "a", "--from-hub", "me/refs")])
def test_annotations_come_from_one_place(hub: Hub, tmp_path: Path, sources: tuple[str, ...]) -> None:
    result = prepare(hub, tmp_path, "grefcoco", *sources, "--images", "i", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "--from-hub" in result.stderr
