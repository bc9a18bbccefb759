"""igvg prepare as a user meets it: real processes on the embedded data set."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shards.synthetic.writer import write_published
from tests.support.tiny_shards import fill_masks, make_items, write_items

# The root command with this one command, so that a fault in another does not show here.
PROGRAM = """
import sys
from igvg_cli import app
app.COMMANDS = {"prepare": "prepare", "train": "train"}
app.main()
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    write_published(folder, seed=3, train_images=12, held_out_images=2)
    return folder


@pytest.fixture
def published(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "published"))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, "prepare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def run_on(published: Path, *arguments: object, dataset: str = "grefcoco") -> subprocess.CompletedProcess[str]:
    pictures = published / "images" / "train2014"
    return run(
        dataset, "--annotations", published / dataset, "--images", pictures, "--out", published / "out", *arguments
    )


def assert_one_error(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    for word in words:
        assert word in result.stderr


def remove_pictures(published: Path) -> list[Path]:
    files = sorted((published / "images" / "train2014").iterdir())
    for file in files:
        file.unlink()
    return files


@pytest.mark.parametrize(("dataset", "held_out"), [("grefcoco", "val"), ("ref-zom", "test"), ("rrefcoco", "val")])
def test_the_embedded_data_sets_are_prepared_and_counted(published: Path, dataset: str, held_out: str) -> None:
    result = run_on(published, dataset=dataset)
    assert (result.returncode, result.stderr) == (0, "")
    for word in ("images", "expressions", "single", "multiple", "empty", "train", held_out):
        assert word in result.stdout
    assert (published / "out" / held_out / f"{held_out}-000000.tar").is_file()


def test_the_second_run_says_that_there_is_nothing_to_do_and_prints_the_same_table(published: Path) -> None:
    first, second = run_on(published), run_on(published)
    assert second.returncode == 0
    assert second.stderr == f"{published / 'out'} is up to date: same files, same settings; nothing to do.\n"
    assert second.stdout == first.stdout


def test_other_settings_are_an_error_that_names_them_and_force_replaces(published: Path) -> None:
    run_on(published)
    assert_one_error(run_on(published, "--limit", 1), "limit 0 → 1", "--force")
    assert run_on(published, "--limit", 1, "--force").returncode == 0


def test_the_shards_do_not_depend_on_the_number_of_workers(published: Path) -> None:
    run_on(published, "--workers", 0)
    (published / "out").rename(published / "alone")
    run_on(published, "--workers", 2)
    for name in ("train/train-000000.tar", "train/index.json", "artifact.json"):
        assert (published / "out" / name).read_bytes() == (published / "alone" / name).read_bytes()


def test_chosen_splits_are_prepared_and_others_are_not(published: Path) -> None:
    assert run_on(published, "--split", "val").returncode == 0
    assert sorted(path.name for path in (published / "out").iterdir()) == ["artifact.json", "val"]


def test_a_split_that_does_not_exist_is_an_error_that_lists_those_that_do(published: Path) -> None:
    assert_one_error(run_on(published, "--split", "testA"), "no split 'testA'; there are train, val")


def test_a_missing_image_is_one_line_and_leaves_nothing(published: Path) -> None:
    remove_pictures(published)
    assert_one_error(run_on(published), "COCO_val2014_", "train2014", "--skip-invalid")
    assert sorted(path.name for path in published.iterdir()) == ["grefcoco", "images", "ref-zom", "rrefcoco"]


def test_what_is_skipped_is_counted_beneath_the_table(published: Path) -> None:
    sorted((published / "images" / "train2014").iterdir())[0].write_bytes(b"no picture")
    assert_one_error(run_on(published), "not an image")
    result = run_on(published, "--skip-invalid")
    assert result.returncode == 0
    assert "skipped: 1 × unusable picture" in result.stdout
    assert "skipped.json" in result.stdout


def test_a_dry_run_says_that_all_is_there_and_writes_nothing(published: Path) -> None:
    result = run_on(published, "--dry-run")
    assert (result.returncode, result.stderr) == (0, "")
    assert "all files are there: 8 images" in result.stdout
    assert not (published / "out").exists()


def test_a_dry_run_lists_every_missing_image_with_its_names_and_place(published: Path) -> None:
    count = len(remove_pictures(published)[:8])
    result = run_on(published, "--dry-run")
    assert_one_error(result, f"{count} files are missing")
    lines = result.stdout.splitlines()
    assert len(lines) == count
    assert lines[0] == (
        "missing: COCO_train2014_000000000001.jpg or COCO_val2014_000000000001.jpg or 000000000001.jpg in "
        f"{published / 'images' / 'train2014'}"
    )
    assert not (published / "out").exists()


def test_a_dry_run_lists_missing_annotation_files(published: Path) -> None:
    (published / "grefcoco" / "instances.json").unlink()
    result = run_on(published, "--dry-run")
    assert_one_error(result, "1 file is missing")
    assert result.stdout == f"missing: instances.json in {published / 'grefcoco'}\n"


def test_a_dry_run_reports_records_that_cannot_be_used(published: Path) -> None:
    file = published / "grefcoco" / "grefs(unc).json"
    file.write_text(file.read_text().replace('"image_id"', '"picture"', 1))
    assert_one_error(run_on(published, "--dry-run"), "has no image_id")
    result = run_on(published, "--dry-run", "--skip-invalid")
    assert result.returncode == 0
    assert "would be skipped: 1 × malformed record" in result.stdout


def test_a_wrong_folder_is_answered_with_the_expected_names(published: Path) -> None:
    result = run("ref-zom", "--annotations", published, "--images", published, "--out", published / "out")
    assert_one_error(result, "holds no refs(final).p or Ref-ZOM(final).p or Ref_ZOM.p")


def test_an_unknown_data_set_is_wrong_usage(published: Path) -> None:
    result = run_on(published, dataset="flickr")
    assert result.returncode == 2
    assert "grefcoco" in result.stderr


def test_help_shows_an_example() -> None:
    result = run("--help")
    assert result.returncode == 0
    assert "Example: igvg prepare grefcoco" in result.stdout


def test_a_dry_run_that_skips_takes_missing_images_for_records_that_are_left_out(published: Path) -> None:
    gone = sorted((published / "images" / "train2014").iterdir())[:2]
    for file in gone:
        file.unlink()
    result = run_on(published, "--dry-run", "--skip-invalid")
    assert (result.returncode, result.stderr) == (0, "")
    assert "missing: COCO_train2014_" in result.stdout
    assert "would be prepared: 6 images" in result.stdout
    assert "would be skipped: 2 × missing picture" in result.stdout
    for file in (published / "images" / "train2014").iterdir():
        file.unlink()
    assert_one_error(run_on(published, "--dry-run", "--skip-invalid"), "no image is left to prepare (8 × missing")


def test_a_cache_is_built_with_the_shards_and_completed_on_finished_ones(published: Path) -> None:
    first = run_on(published, "--cache", "32")
    assert first.returncode == 0, first.stderr
    files = sorted((published / "out" / "cache").glob("*-32-*.images"))
    assert [file.name.split("-")[0] for file in files] == ["testA", "testB", "train", "val"][-len(files) :]
    assert "image cache" in first.stderr
    kept = files[0].read_bytes()
    os.truncate(files[0], 5000)
    again = run_on(published, "--cache", "32", "--cache-limit", "1")
    assert again.returncode == 0, again.stderr
    assert "up to date" in again.stderr
    assert files[0].read_bytes() == kept


def test_others_shards_may_have_a_cache_too(tmp_path: Path) -> None:
    items = [(fill_masks(record), file) for record, file in make_items(tmp_path / "images", [2, 1])]
    write_items(tmp_path / "tars", items)
    words = ("webdataset", "--annotations", tmp_path / "tars", "--out", tmp_path / "out", "--cache", "16")
    assert run(*words).returncode == 0
    (file,) = (tmp_path / "out" / "cache").glob("*-16-*.images")
    assert file.stat().st_size > 2 * 3 * 16 * 16
    assert "is up to date" in run(*words, "--workers", "0").stderr
