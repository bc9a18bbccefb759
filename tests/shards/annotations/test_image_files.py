"""Where image files are found: under which names, in which folders, and when it is not certain whose a file is."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.annotations.coco import CocoImage, link_same_names
from shards.annotations.image_files import candidate_names, find_shared_files, index_folders, locate_image
from shards.errors import DataError


def make_image(file_name: str = "COCO_train2014_000000000007.jpg", image_id: int = 7) -> CocoImage:
    return CocoImage(image_id=image_id, file_name=file_name, width=40, height=30)


def write(file: Path, content: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def make_clips(folder: Path) -> dict[int, CocoImage]:
    """Two clips with a frame of one name; the folder is part of the published name."""
    for clip in (1, 2):
        write(folder / f"clip{clip}" / "frame66.png", f"clip {clip}")
    images = {clip: make_image(f"clip{clip}/frame66.png", clip) for clip in (1, 2)}
    link_same_names(images)
    return images


@pytest.mark.parametrize(
    "name", ["elsewhere.jpg", "COCO_train2014_000000000007.jpg", "COCO_val2014_000000000007.jpg", "000000000007.jpg"]
)
def test_an_image_is_found_under_each_of_its_names(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name)
    assert locate_image(make_image("elsewhere.jpg"), index_folders([tmp_path])) == file


def test_an_image_that_is_nowhere_is_not_found(tmp_path: Path) -> None:
    write(tmp_path / "000000000008.jpg")
    assert locate_image(make_image(), index_folders([tmp_path])) is None


def test_a_name_with_its_folder_comes_before_the_name_alone(tmp_path: Path) -> None:
    write(tmp_path / "frame.png", "other")
    inside = write(tmp_path / "clip" / "frame.png")
    assert locate_image(make_image("clip/frame.png"), index_folders([tmp_path])) == inside
    assert locate_image(make_image("clip\\frame.png"), index_folders([tmp_path])) == inside


def test_frames_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    images, files = make_clips(tmp_path), index_folders([tmp_path])
    assert [locate_image(images[clip], files) for clip in (1, 2)] == [
        tmp_path / f"clip{clip}" / "frame66.png" for clip in (1, 2)
    ]


@pytest.mark.parametrize("folders", [["clip1", "clip2"], ["clip1"]])
def test_without_the_folder_above_frames_of_one_name_are_refused(tmp_path: Path, folders: list[str]) -> None:
    images, files = make_clips(tmp_path), index_folders([tmp_path / name for name in folders])
    for clip, other in ((1, 2), (2, 1)):
        with pytest.raises(
            DataError, match=rf"image {clip}: frame66\.png is the name of image {other} too; keep the fol"
        ):
            locate_image(images[clip], files)


def test_one_name_for_two_images_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "frame.png")
    images = {number: make_image("frame.png", number) for number in (1, 2)}
    link_same_names(images)
    with pytest.raises(DataError, match=r"frame\.png, image 2: frame\.png is the name of image 1 too"):
        locate_image(images[2], index_folders([tmp_path]))


def test_one_file_that_is_found_for_two_images_is_refused_for_both() -> None:
    shared = find_shared_files({(1, "a"): Path("a.jpg"), (2, "b"): Path("b.jpg"), (3, "c"): Path("a.jpg")})
    assert sorted(shared) == [(1, "a"), (3, "c")]
    assert "a.jpg, image 1: is the file found for image 3 too" in str(shared[1, "a"])


def test_a_name_in_two_folders_with_other_content_is_refused_and_both_are_named(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name / "000000000007.jpg", name) for name in "ab")
    with pytest.raises(DataError, match=f"{first}, image 7: {second} has the same name and other content; give only"):
        locate_image(make_image(), index_folders([tmp_path / "a", tmp_path / "b"]))


def test_copies_of_an_image_in_two_folders_are_harmless(tmp_path: Path) -> None:
    files = [write(tmp_path / name / "000000000007.jpg", "the same") for name in "ab"]
    assert locate_image(make_image(), index_folders([tmp_path / "a", tmp_path / "b"])) == files[0]
    assert locate_image(make_image(), index_folders([tmp_path / "b", tmp_path / "a"])) == files[1]


def test_only_visible_image_files_count(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    for name in ("notes.txt", ".hidden.jpg", "jpg", "seen.JPG", ".hidden/a.jpg", "in/side.png"):
        write(tmp_path / name)
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert sorted(index_folders([tmp_path])) == ["in/side.png", "seen.JPG"]


def test_folders_that_contain_each_other_by_links_are_listed_once(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert list(index_folders([tmp_path])) == ["a/x.png"]


def test_a_missing_folder_of_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent: no such file or folder; check the path"):
        index_folders([tmp_path / "absent"])


@given(file_name=st.text(alphabet=st.sampled_from("./\\ab"), max_size=12))
def test_no_file_name_leads_out_of_the_folder(file_name: str) -> None:
    for name in candidate_names(make_image(file_name)):
        assert not PurePosixPath(name).is_absolute()
        assert name == ".." or ".." not in PurePosixPath(name).parts
