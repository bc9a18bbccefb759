"""igvg prepare on data with faults: what stops it, what is left out, and what a look beforehand tells."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.config.settings import PrepareSettings
from pipelines.stages import prepare
from shards.errors import DataError, SettingsError
from tests.support.published_set import IMAGE_IDS, Published, list_siblings


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "made" / "shards"


# Records that cannot be used


def corrupt_target(published: Published) -> None:
    published.refs[3]["ann_id"] = [999]


def corrupt_segmentation(published: Published) -> None:
    published.instances["annotations"][4]["segmentation"] = "round"


def corrupt_size(published: Published) -> None:
    Image.new("RGB", (30, 40)).save(published.image(9))


def corrupt_picture(published: Published) -> None:
    published.image(9).write_bytes(b"no picture at all")


def cut_picture(published: Published) -> None:
    published.image(9).write_bytes(published.image(9).read_bytes()[:400])


def remove_picture(published: Published) -> None:
    published.image(9).unlink()


SPOILERS = {
    corrupt_target: ("unknown annotation", r"grefs\(unc\)\.json, ref 4: instances\.json has no annotation 999"),
    corrupt_segmentation: ("unusable annotation", "image 9: annotation 90: segmentation is of type str"),
    corrupt_size: ("unusable picture", "image 9: the image has 30 × 40 pixels, the annotations say 40 × 30"),
    corrupt_picture: ("unusable picture", r"000000000009\.jpg, image 9: is text that begins .*, not an image"),
    cut_picture: ("unusable picture", r"000000000009\.jpg, image 9: is damaged or cut short"),
    remove_picture: (
        "missing picture",
        (
            r"image 9: no image COCO_train2014_000000000009\.jpg, COCO_val2014_000000000009\.jpg, "
            r"000000000009\.jpg in .*train2014"
        ),
    ),
}


@pytest.mark.parametrize("corrupt", SPOILERS, ids=lambda corrupt: corrupt.__name__)
def test_a_record_that_cannot_be_used_stops_the_work_and_leaves_nothing(
    published: Published, out: Path, corrupt: Any
) -> None:
    corrupt(published)
    published.save()
    with pytest.raises(DataError, match=SPOILERS[corrupt][1] + ".*; correct the files or pass --skip-invalid"):
        published.prepare(out)
    assert list_siblings(out) == []


@pytest.mark.parametrize("corrupt", SPOILERS, ids=lambda corrupt: corrupt.__name__)
def test_with_skip_invalid_the_rest_is_prepared_and_what_is_left_out_is_counted_and_listed(
    published: Published, out: Path, corrupt: Any
) -> None:
    corrupt(published)
    published.refs.append(published.make_ref(5, 8, [80], "val"))
    published.save()
    result = published.prepare(out, skip_invalid=True)
    assert result.counts["skipped"] == {SPOILERS[corrupt][0]: 1}
    assert result.counts["splits"]["val"]["expressions"] == 2
    assert result.counts["splits"]["train"]["pictures"] == 2
    skipped = json.loads((out / "skipped.json").read_text())
    assert (skipped["count"], skipped["kinds"]) == (1, result.counts["skipped"])
    assert published.prepare(out, skip_invalid=True).cached


def test_bad_records_of_one_kind_are_all_counted(published: Published, out: Path) -> None:
    published.refs += [published.make_ref(5, 8, [999], "train"), published.make_ref(6, 7, [998, 70], "train")]
    published.image(9).unlink()
    published.save()
    result = published.prepare(out, skip_invalid=True)
    assert result.counts["skipped"] == {"unknown annotation": 2, "missing picture": 1}
    skipped = json.loads((out / "skipped.json").read_text())
    assert (skipped["count"], len(skipped["records"])) == (3, 3)
    assert sorted(record["record"] for record in skipped["records"]) == ["image 9", "ref 5", "ref 6"]


def test_if_nothing_is_left_nothing_is_published(published: Published, out: Path) -> None:
    for number in IMAGE_IDS:
        published.image(number).unlink()
    with pytest.raises(DataError, match=r"no image is left to prepare \(3 × missing picture"):
        published.prepare(out, skip_invalid=True)
    assert list_siblings(out) == []


def test_if_no_record_can_be_written_nothing_is_published(published: Published, out: Path) -> None:
    for number in IMAGE_IDS:
        published.image(number).write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no image is left to prepare \(3 × unusable picture"):
        published.prepare(out, skip_invalid=True)
    assert list_siblings(out) == []


def test_a_missing_folder_of_images_is_named(published: Published, out: Path) -> None:
    shutil.rmtree(published.images)
    with pytest.raises(DataError, match="train2014: no such file or folder; check the path"):
        published.prepare(out)


def test_a_data_set_that_does_not_exist_is_refused(published: Published, out: Path) -> None:
    settings = PrepareSettings(dataset="flickr")
    with pytest.raises(SettingsError, match="no data set 'flickr'; there are grefcoco, ref-zom"):
        prepare.run(settings, published.annotations, [published.images], out)
    with pytest.raises(SettingsError, match="no data set 'flickr'"):
        prepare.inspect(settings, published.annotations, [published.images])


# Looking before


def test_an_inspection_finds_all_files_and_counts_what_is_there(published: Published) -> None:
    found = published.inspect()
    assert (found.missing, found.images, found.expressions, len(found.collector)) == ((), 3, 8, 0)


def test_an_inspection_names_missing_annotation_files_with_all_their_names(published: Published) -> None:
    shutil.rmtree(published.annotations)
    found = published.inspect()
    assert [file.names for file in found.missing] == [("grefs(unc).json", "grefs(unc).p"), ("instances.json",)]
    assert {file.folders for file in found.missing} == {(published.annotations,)}


def test_an_inspection_names_missing_images_also_if_their_folder_is_missing(published: Published) -> None:
    published.image(8).unlink()
    assert [file.names[2] for file in published.inspect().missing] == ["000000000008.jpg"]
    assert published.inspect(splits=("val",)).missing == ()
    shutil.rmtree(published.images)
    assert len(published.inspect().missing) == 3


def test_an_inspection_collects_records_that_cannot_be_used(published: Published) -> None:
    corrupt_target(published)
    published.save()
    with pytest.raises(DataError, match=r"ref 4: .* no annotation 999"):
        published.inspect().collector.raise_if_any()
