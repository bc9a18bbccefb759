"""Bombs, pipes, devices, links and names that lead elsewhere: refused in one line, soon and in little memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.bombs import FILES, IMAGES, make_instances, make_png, write_special
from tests.support.drawn_shards import write_shards
from tests.support.measured_runs import MeasuredRun, Runner, start_runner
from tests.support.mutated_annotations import draw_images, make_documents
from tests.support.refusals import MEGABYTES, SECONDS


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with start_runner() as started:
        yield started


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bombs")
    files = write_special(folder)
    for name, make in FILES.items():
        files.append(folder / f"{name.replace(' ', '-')}.json")
        files[-1].write_bytes(make())
    return files


def check(run: MeasuredRun, *named: str) -> None:
    """One line of error, in bounded time and memory."""
    assert run.status == 1, run
    errors = [line for line in run.stderr.splitlines() if line.startswith("Error:")]
    assert len(errors) == 1, run
    assert "Traceback" not in run.stderr, run
    assert all(name in errors[0] for name in named), run
    assert errors[0].isprintable(), run
    assert run.seconds < SECONDS, run
    assert run.megabytes < MEGABYTES, run


def prepare(runner: Runner, dataset: str, annotations: Path, images: Path, out: Path) -> MeasuredRun:
    given = ("--annotations", annotations, "--images", images, "--workers", "1")
    run = runner.run("prepare", dataset, *given, "--out", out)
    assert not out.exists()
    return run


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_bomb_is_refused(name: str, runner: Runner, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / name).write_bytes(IMAGES[name]())
    lines = tmp_path / "own.jsonl"
    lines.write_text(json.dumps({"image": name, "text": "it", "targets": [{"box": [10, 10, 50, 50]}]}))
    check(prepare(runner, "jsonl", lines, images, tmp_path / "out"), name)
    predict = ("predict", "--checkpoint", "shapes", "--image", images / name, "--text", "it", "--out", tmp_path / "out")
    check(runner.run(*predict), name)


@pytest.mark.parametrize("name", ["said.png", "filled.png", "wide.png"])
def test_a_mask_bomb_is_refused(name: str, runner: Runner, tmp_path: Path) -> None:
    images = draw_images(tmp_path / "images")
    (tmp_path / name).write_bytes(IMAGES[name]())
    lines = tmp_path / "own.jsonl"
    lines.write_text(json.dumps({"image": "clip/7.png", "text": "it", "targets": [{"mask": name}]}))
    check(prepare(runner, "jsonl", lines, images, tmp_path / "out"), name)
    entry = {"id": "a/0", "file": name, "image": "a.png", "text": "it", "boxes": []}
    (tmp_path / "index.json").write_text(json.dumps([entry]))
    check(runner.run("convert", tmp_path, "--from", "png", "--out", tmp_path / "p.jsonl"), name)


def test_masks_as_large_as_pillow_reads_stay_within_the_memory(runner: Runner, tmp_path: Path) -> None:
    side = 13_300
    (tmp_path / "large.png").write_bytes(make_png(side, side, filled=True, bits=8))
    entry = {"id": "a/0", "file": "large.png", "image": "a.png", "text": "it", "boxes": []}
    (tmp_path / "index.json").write_text(json.dumps([entry]))
    run = runner.run("convert", tmp_path, "--from", "png", "--out", tmp_path / "p.jsonl")
    assert run.status == 0, run
    assert run.megabytes < MEGABYTES, run


SEGMENTATIONS = {
    "runs": {"size": [10**9, 10**9], "counts": [10**18]},
    "runs of nothing": {"size": [60_000, 60_000], "counts": [0, 0, 60_000**2]},
    "polygon": [[0, 0, 1e9, 0, 1e9, 1e9]],
    "nothing": [],
}


@pytest.mark.parametrize("side", [40, 60_000, 10**9])
@pytest.mark.parametrize("kind", SEGMENTATIONS)
def test_annotations_of_a_huge_image_are_refused(kind: str, side: int, runner: Runner, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (40, 40)).save(images / "1.png")
    own = tmp_path / "own.json"
    own.write_bytes(make_instances(side, side, SEGMENTATIONS[kind]))
    if kind != "nothing" or side > 40:
        check(prepare(runner, "coco", own, images, tmp_path / "out"), "")
    published = tmp_path / "published"
    published.mkdir()
    (published / "instances.json").write_bytes(own.read_bytes())
    sentence = {"sent_id": 1, "raw": "it", "sent": "it", "exist": True}
    ref = {"ref_id": 1, "image_id": 1, "ann_id": [1], "split": "val", "sentences": [sentence]}
    (published / "grefs(unc).json").write_text(json.dumps([ref]))
    check(prepare(runner, "grefcoco", published, images, tmp_path / "out"), "")


def list_commands(folder: Path, images: Path, shards: Path) -> dict[str, Callable[[Path], tuple[str | Path, ...]]]:
    """A command line for each kind of file, of its path."""
    split, out = ("--shards", shards, "--split", "val"), ("--out", folder / "out")
    read = ("--images", images, "--workers", "1", *out)
    return {
        "jsonl": lambda file: ("prepare", "jsonl", "--annotations", file, *read),
        "coco": lambda file: ("prepare", "coco", "--annotations", file, *read),
        "score": lambda file: ("score", file, *split),
        "labelme": lambda file: ("convert", file, "--from", "labelme", "--out", folder / "p.jsonl"),
        "results": lambda file: ("convert", file, "--annotations", file, *split, "--out", folder / "p.jsonl"),
        "import": lambda file: ("import", file, *out),
        "run": lambda file: ("run", file),
        "image": lambda file: ("predict", "--checkpoint", "shapes", "--image", file, "--text", "it", *out),
        "checkpoint": lambda file: ("predict", "--checkpoint", file, "--image", images / "clip", "--text", "it", *out),
        "inspect": lambda file: ("verify", file),
    }


NORMAL = ("jsonl", "score", "labelme", "import", "run")
COMMANDS = [
    pytest.param(command, marks=() if command in NORMAL else pytest.mark.slow)
    for command in list_commands(Path(), Path(), Path())
]


@pytest.mark.parametrize("command", COMMANDS)
def test_bombs_pipes_and_devices_are_refused_by_every_command(
    command: str, runner: Runner, shards: Path, bombs: list[Path], tmp_path: Path
) -> None:
    images = draw_images(tmp_path / "images")
    arguments = list_commands(tmp_path, images, shards)[command]
    failed = []
    for file in bombs:
        # Predictions may come through a pipe, and are waited for.
        if (command, file.name) == ("score", "pipe.json"):
            continue
        try:
            check(runner.run(*arguments(file)), file.name)
        except AssertionError as error:
            failed.append(f"{file.name}: {str(error)[:300]}")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("dataset", ["rrefcoco", pytest.param("grefcoco", marks=pytest.mark.slow)])
def test_bombs_and_pipes_among_published_files_are_refused(
    dataset: str, runner: Runner, bombs: list[Path], tmp_path: Path
) -> None:
    images = draw_images(tmp_path / "images")
    name = {"grefcoco": "grefs(unc).p", "rrefcoco": "refs(unc).p"}[dataset]
    folder = tmp_path / "published"
    folder.mkdir()
    instances, _, _ = make_documents()
    for changed in (name, "instances.json"):
        for bomb in bombs:
            for file in folder.iterdir():
                file.unlink()
            (folder / "instances.json").write_text(json.dumps(instances))
            (folder / name).write_bytes(b"")
            (folder / changed).unlink()
            (folder / changed).symlink_to(bomb)
            check(prepare(runner, dataset, folder, images, tmp_path / "out"))


NAMES = ["../secret.png", "/etc/hostname", "a\0.png", "a\nb.png", "..", "a/../../secret.png", "C:\\\\a.png", "x" * 5000]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_an_image_whose_name_leads_out_of_its_folder_is_not_read(name: str, runner: Runner, tmp_path: Path) -> None:
    images = draw_images(tmp_path / "images")
    (tmp_path / "secret.png").write_bytes(make_png(40, 30, filled=True))
    lines = tmp_path / "own.jsonl"
    lines.write_text(json.dumps({"image": name, "text": "it", "targets": []}))
    check(prepare(runner, "jsonl", lines, images, tmp_path / "out"))
    lines.write_text(json.dumps({"image": "clip/7.png", "text": "it", "targets": [{"mask": name}]}))
    check(prepare(runner, "jsonl", lines, images, tmp_path / "out"))


def test_an_image_in_the_users_own_folder_may_be_a_link(runner: Runner, tmp_path: Path) -> None:
    draw_images(tmp_path / "elsewhere")
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").symlink_to(tmp_path / "elsewhere" / "clip" / "7.png")
    lines = tmp_path / "own.jsonl"
    lines.write_text(json.dumps({"image": "a.png", "text": "it", "targets": []}))
    given = ("--annotations", lines, "--images", images, "--workers", "1", "--out", tmp_path / "out")
    assert runner.run("prepare", "jsonl", *given).status == 0
