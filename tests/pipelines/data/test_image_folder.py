"""A folder of one's own images: what is taken, what is left out and said, and what an unreadable one costs."""

from __future__ import annotations

import json
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pipelines.config.settings import PredictSettings
from pipelines.data.image_folder import describe_left_out, list_images, name_images
from pipelines.data.image_queries import check_images, query_images
from pipelines.data.tokenizer import train_tokenizer
from pipelines.model import IGVGModel
from pipelines.prediction.prediction_file import read_predictions
from pipelines.pretrained import save_checkpoint
from pipelines.report.own_images import name_overlay
from pipelines.stages import predict_images
from pipelines.stages.artifact import StageResult
from shards.annotations.image_files import index_folders
from shards.errors import ArtifactError, DataError, SettingsError
from shards.index import IMAGE_EXTENSIONS
from shards.record import LONGEST_SIDE
from tests.support.exif_blocks import ASCII, ORIENTATION, SHORT, make_block, make_entry
from tests.support.pipeline_runs import igvg, only_error
from tests.support.small_network import CONFIG

TURNED = make_entry(ORIENTATION, SHORT, 1, struct.pack("<HH", 6, 0))
DAMAGED = b"Exif\0\0" + make_block([make_entry(0x11A, ASCII, 3, b"72\0\0"), TURNED])


def save(file: Path, size: tuple[int, int] = (6, 4), **options: Any) -> Path:
    image = Image.new("RGB", size, (200, 40, 40))
    image.save(file, **options)
    return file


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was never trained."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["the red car", "two red cars", "the car"] * 3, CONFIG.vocab_size)
    save_checkpoint(folder, IGVGModel(replace(CONFIG, text_positions=12)), tokenizer, 10)
    return folder


def find(checkpoint: Path, images: Path, out: Path, *texts: str) -> StageResult[None]:
    settings = PredictSettings(workers=0)
    texts = texts or ("the red car",)
    return predict_images.run_on_images(settings, checkpoint, query_images([images], texts), out)


# What is taken


def test_a_folder_s_images_are_those_that_prepare_takes(tmp_path: Path) -> None:
    names = [f"{n}.{ending}" for n, ending in enumerate(sorted(IMAGE_EXTENSIONS))] + ["big.JPG", "Mixed.Tiff"]
    for name in [*names, "notes.txt", "photo.heic", "jpg", ".jpg"]:
        (tmp_path / name).touch()
    assert [file.name for file in list_images(tmp_path).files] == sorted(names)
    assert sorted(index_folders([tmp_path])) == sorted(names)


def test_hidden_files_folders_and_links_to_nothing_are_passed_over_without_a_word(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "linked.png").symlink_to(tmp_path / "a.png")
    found = list_images(tmp_path)
    assert [file.name for file in found.files] == ["a.png", "linked.png"]
    assert found.left_out == ()


def test_whatever_else_is_left_out_is_named_with_the_reason(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("notes")
    save(tmp_path / "really.dat", format="PNG")
    os.mkfifo(tmp_path / "pipe.png")
    assert describe_left_out(list_images(tmp_path).left_out) == [
        "notes.txt is left out: it has no ending of an image",
        "pipe.png is left out: it is a device or a pipe",
        "really.dat is left out: it has no ending of an image (it holds a PNG image)",
    ]


def test_of_many_files_that_are_left_out_the_first_are_named_and_the_others_counted(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    for number in range(13):
        (tmp_path / f"{number:02}.txt").touch()
    lines = describe_left_out(list_images(tmp_path).left_out)
    assert len(lines) == 11
    assert lines[-1].startswith("3 more files are left out")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, r"images: no such file or folder; check the path"),
        (lambda path: path.mkdir(), r"images: holds no image; give an image, or a folder with \.bmp, .*\.webp files"),
        (
            lambda path: (path.mkdir(), (path / "notes.txt").touch()),
            r"images: holds no image \(notes\.txt is left out: it has no ending of an image\)",
        ),
    ],
)
def test_a_path_without_images_is_an_error_with_a_remedy(tmp_path: Path, make: Any, words: str) -> None:
    make(tmp_path / "images")
    with pytest.raises(DataError, match=words):
        list_images(tmp_path / "images")


# Names


def test_names_that_a_file_system_may_take_for_one_are_told_apart(tmp_path: Path) -> None:
    names = ["A.JPG", "a.jpg", "a.png", "caf\u00e9.png", "cafe\u0301.png"]
    found = name_images([tmp_path / name for name in names])
    assert found == ["A.JPG", "a.jpg~2", "a.png", "caf\u00e9.png", "cafe\u0301.png~2"]


def test_a_name_that_is_no_text_or_has_several_lines_is_written_in_one() -> None:
    from pathlib import Path as AnyPath

    assert name_images([AnyPath(os.fsdecode(b"caf\xe9.png")), AnyPath("two\nlines.png")]) == [
        r"caf\xe9.png",
        r"two\nlines.png",
    ]


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\u96ea"])
def test_overlays_of_long_names_have_shorter_ones_that_differ(letter: str) -> None:
    names = [f"{letter * 150}{ending}.png" for ending in ("a", "b")]
    overlays = [name_overlay(name, text) for name in names for text in (0, 1)]
    assert len(set(overlays)) == 4
    assert all(len(overlay.encode()) <= 210 for overlay in overlays)


# Images that cannot be read


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four images, two of which cannot be read, and one whose EXIF block is damaged."""
    folder = tmp_path / "images"
    folder.mkdir()
    save(folder / "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:40])
    save(folder / "c.jpg", exif=DAMAGED)
    (folder / "d.jpg").write_text("version https://git-lfs.github.com/spec/v1\n")
    (folder / "e.jpg").touch()
    (folder / "notes.txt").touch()
    return folder


def test_images_that_cannot_be_read_are_kept_apart_from_those_that_can(images: Path) -> None:
    checked = check_images(query_images([images], ["car"]))
    assert [file.name for file in checked.files] == ["a.png", "c.jpg"]
    assert list(checked.unreadable) == ["b.png", "d.jpg", "e.jpg"]
    assert "d.jpg: is a Git LFS pointer, not an image" in checked.unreadable["d.jpg"]
    assert "e.jpg: is an empty file, not an image" in checked.unreadable["e.jpg"]
    (remark,) = checked.remarks
    assert remark.startswith(f"{images / 'c.jpg'}: its EXIF block is damaged")


def test_one_unreadable_image_does_not_lose_the_others_and_is_reported_each_time(
    checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    words = ("predict", "--checkpoint", checkpoint, "--image", images, "--text", "the red car", "--out",
             tmp_path / "out", "--set", "workers=0")  # fmt: skip
    result = igvg(*words)
    error = only_error(result)
    assert "3 of 5 images could not be read: b.png, d.jpg, e.jpg" in error
    assert f"the others' results are in {tmp_path / 'out'}" in error
    assert "notes.txt is left out: it has no ending of an image" in result.stderr
    assert "c.jpg: its EXIF block is damaged" in result.stderr
    assert "d.jpg: is a Git LFS pointer" in result.stderr
    assert [one.id for one in read_predictions(tmp_path / "out" / "predictions.jsonl")] == ["a.png/0", "c.jpg/0"]
    assert sorted(file.name for file in (tmp_path / "out" / "overlays").iterdir()) == ["a-png-0.png", "c-jpg-0.png"]
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    again = igvg(*words)
    assert only_error(again) == error
    assert "is up to date" in again.stderr
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")} == times


def test_an_image_whose_answer_no_prediction_file_can_hold_does_not_cost_the_others_theirs(
    checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for name, width in (("a.png", 4), ("long.png", LONGEST_SIDE), ("longer.png", LONGEST_SIDE + 1)):
        save(tmp_path / "images" / name, (width, 1))
    result = find(checkpoint, tmp_path / "images", tmp_path / "out")
    assert [one.id for one in read_predictions(tmp_path / "out" / "predictions.jsonl")] == ["a.png/0", "long.png/0"]
    assert list(result.counts["unreadable"]) == ["longer.png"]
    assert (
        "has 32768 × 1 pixels, more than 32767 in one direction; reduce the image"
        in result.counts["unreadable"]["longer.png"]
    )


def test_where_no_image_can_be_read_nothing_is_written(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    for name in ("a.png", "c.jpg"):
        (images / name).unlink()
    with pytest.raises(DataError, match=r"none of 3 images can be read; the first, .*b\.png, is not a readable image"):
        find(checkpoint, images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_of_one_pixel_and_of_odd_names_come_through_with_their_sizes(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    save(folder / "one.png", (1, 1))
    save(folder / "thin.png", (600, 2))
    save(folder / "turned.jpg", (30, 20), exif=DAMAGED)
    save(folder / "A.PNG")
    save(folder / "a.png")
    save(folder / "a.jpg")
    with (folder / os.fsdecode(b"caf\xe9.png")).open("wb") as stream:
        save(stream, format="PNG")  # type: ignore[arg-type]
    save(folder / f"{'x' * 240}.png")
    result = find(checkpoint, folder, tmp_path / "out", "the red car", "two red cars")
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    sizes = {line["id"]: line["mask"]["size"] for line in lines}
    assert len(sizes) == result.counts["expressions"] == 16
    assert (sizes["one.png/0"], sizes["thin.png/1"], sizes["turned.jpg/0"]) == ([1, 1], [2, 600], [30, 20])
    assert {r"caf\xe9.png/0", "A.PNG/1", "a.png~2/0", "a.jpg/0"} <= set(sizes)
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 16
    assert find(checkpoint, folder, tmp_path / "out", "the red car", "two red cars").artifact == result.artifact


def test_an_image_of_the_name_of_another_input_hides_no_change_of_it(checkpoint: Path, tmp_path: Path) -> None:
    image = save(tmp_path / "checkpoint", format="PNG")
    find(checkpoint, image, tmp_path / "out")
    other = shutil.copytree(checkpoint, tmp_path / "other")
    torch.manual_seed(1)
    IGVGModel(replace(CONFIG, text_positions=12)).save_pretrained(other)
    with pytest.raises(ArtifactError, match="input checkpoint differs"):
        find(other, image, tmp_path / "out")
    save(image, (5, 5), format="PNG")
    with pytest.raises(ArtifactError, match=r"input images\.checkpoint differs"):
        find(checkpoint, image, tmp_path / "out")


# Texts


@pytest.mark.parametrize(
    ("text", "words"), [("???", r'--text "\?\?\?" has no word'), ("", "--text is empty"), (" \t", "--text is empty")]
)
def test_a_text_without_a_word_is_refused(
    checkpoint: Path, images: Path, tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        find(checkpoint, images / "a.png", tmp_path / "out", "the red car", text)
    assert not (tmp_path / "out").exists()


def test_a_text_that_is_cut_and_one_of_unknown_words_are_noted(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    long = "the red car " * 5
    result = find(checkpoint, images / "a.png", tmp_path / "out", "the red car", long, "zebra \u96ea", "the zebra")
    assert result.counts["cut"] == 1
    cut, unknown = result.counts["notes"]
    assert cut.startswith(f'the text "{long.strip()}" has more than the 10 tokens that the network takes')
    assert unknown == 'the text "zebra \u96ea" has words alone that the network\'s vocabulary does not know'
    assert result.counts["expressions"] == 4
