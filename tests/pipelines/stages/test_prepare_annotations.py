"""igvg prepare on annotations that are ambiguous or unusable: what stops it, what is left out, what is noted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.config.settings import PrepareSettings
from pipelines.stages import prepare
from shards.errors import DataError
from shards.progress import set_sink
from shards.reader import ShardReader
from tests.support.published_set import Published, list_siblings


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "made" / "shards"


def read_texts(out: Path, split: str) -> list[str]:
    with ShardReader(out, split) as reader:
        return [expression.id for record in reader.records() for expression in record.expressions]


def repeat_annotation(published: Published) -> None:
    published.instances["annotations"].append({**published.instances["annotations"][4], "category_id": 4})


def repeat_image(published: Published) -> None:
    published.instances["images"].append({**published.instances["images"][2], "file_name": "other.jpg"})


def repeat_ref(published: Published) -> None:
    published.refs.append({**published.refs[3], "sentences": [{"sent_id": 99, "raw": "another"}]})


@pytest.mark.parametrize(
    ("repeat", "words", "kinds"),
    [
        (repeat_annotation, r"annotation 90 \(entry 5 of", {"repeated id": 2, "refers to a refused entry": 1}),
        (repeat_image, r"image 9 \(entry 3 of", {"repeated id": 2, "refers to a refused entry": 1}),
        (repeat_ref, r"ref 4 \(entry 4\)", {"repeated id": 2}),
    ],
)
def test_entries_of_one_id_that_differ_stop_the_work_or_are_left_out_and_listed(
    published: Published, out: Path, repeat: Any, words: str, kinds: dict[str, int]
) -> None:
    repeat(published)
    published.refs.append(published.make_ref(5, 8, [80], "val"))
    published.save()
    with pytest.raises(DataError, match=words):
        published.prepare(out)
    assert list_siblings(out) == []
    result = published.prepare(out, skip_invalid=True)
    assert result.counts["skipped"] == kinds
    assert read_texts(out, "val") == ["grefcoco/5/50", "grefcoco/5/51"]
    assert json.loads((out / "skipped.json").read_text())["records"][0]["kind"] == "repeated id"


def test_identical_repetitions_change_no_byte(published: Published, out: Path, tmp_path: Path) -> None:
    published.prepare(tmp_path / "once")
    for listed in (*published.instances.values(), published.refs):
        listed.append(dict(listed[0]))
    published.save()
    published.prepare(out)
    assert (out / "train" / "train-000000.tar").read_bytes() == (
        tmp_path / "once" / "train" / "train-000000.tar"
    ).read_bytes()


def test_an_unusable_outline_leaves_the_images_other_expressions(published: Published, out: Path) -> None:
    published.instances["annotations"][1]["segmentation"] = [[1, 2, 3, 4]]
    published.save()
    result = published.prepare(out, skip_invalid=True)
    assert result.counts["skipped"] == {"unusable annotation": 1}
    assert [text for text in read_texts(out, "train") if text.startswith("grefcoco/1/")]
    assert not [text for text in read_texts(out, "train") if text.startswith("grefcoco/2/")]
    assert published.inspect(skip_invalid=True).collector.count_kinds() == {"unusable annotation": 1}


def test_frames_of_two_clips_keep_their_own_pixels(published: Published, out: Path) -> None:
    for image, clip in zip(published.instances["images"][:2], ("clip1", "clip2"), strict=True):
        (published.images / clip).mkdir()
        published.image(image["id"]).rename(published.images / clip / "frame66.jpg")
        image["file_name"] = f"{clip}/frame66.jpg"
    published.save()
    published.prepare(out)
    with ShardReader(out, "train") as reader:
        assert [reader.image(number) for number in range(2)] == [
            (published.images / clip / "frame66.jpg").read_bytes() for clip in ("clip1", "clip2")
        ]
    moved = published.images / "clip1" / "frame66.jpg"
    Image.new("RGB", (40, 30)).save(moved, quality=10)
    with pytest.raises(Exception, match="input pictures differs"):
        published.prepare(out)


def test_one_file_for_two_images_is_refused_and_counted(published: Published, out: Path) -> None:
    for image in published.instances["images"][:2]:
        image["file_name"] = published.instances["images"][0]["file_name"]
    published.save()
    with pytest.raises(DataError, match=r"image 7: COCO_train2014_000000000007\.jpg is the name of image 8 too"):
        published.prepare(out)
    assert published.inspect().collector.count_kinds() == {"ambiguous image file": 2}


def test_a_phrase_without_a_word_and_a_crowd_alone_are_counted_and_listed(published: Published, out: Path) -> None:
    published.refs[0]["sentences"][0]["raw"] = "???"
    published.instances["annotations"][4]["iscrowd"] = 1
    published.save()
    result = published.prepare(out)
    assert result.counts["notes"] == {
        "expression without a word": 1, "expression about crowd regions alone": 2
    }  # fmt: skip
    listed = json.loads((out / "notes.json").read_text())["records"]
    assert [record["record"] for record in listed] == ["grefcoco/1/10", "grefcoco/4/40", "grefcoco/4/41"]
    assert result.counts["skipped"] == {}


@pytest.mark.parametrize(("words", "notes"), [(48, {}), (49, {"expression longer than the token limit": 1})])
def test_a_phrase_of_more_words_than_tokens_is_counted_and_listed(
    published: Published, out: Path, words: int, notes: dict[str, int]
) -> None:
    published.refs[0]["sentences"][0]["raw"] = " ".join(["red"] * words)
    published.save()
    result = published.prepare(out)
    assert result.counts.get("notes", {}) == notes
    if notes:
        (record,) = json.loads((out / "notes.json").read_text())["records"]
        assert record["record"] == "grefcoco/1/10"
        assert "has 49 words: more than fit into 50 tokens" in json.dumps(record)


def mark_image(published: Published, number: int, orientation: int, size: tuple[int, int] = (40, 30)) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(published.image(number), exif=exif)


@pytest.mark.parametrize("workers", [1, 2])
def test_images_with_an_orientation_mark_are_counted_and_listed(published: Published, out: Path, workers: int) -> None:
    for number, orientation in ((7, 1), (8, 3), (9, 6)):
        mark_image(published, number, orientation)
    result = published.prepare(out, workers=workers)
    assert result.counts["notes"] == {"image with an EXIF orientation mark": 2}
    listed = json.loads((out / "notes.json").read_text())["records"]
    assert [(note["file"], note["record"], note["what"][:26]) for note in listed] == [
        (str(published.image(8)), "image 8", "EXIF orientation mark 3: t"),
        (str(published.image(9)), "image 9", "EXIF orientation mark 6: t"),
    ]


def test_a_size_that_contradicts_because_of_the_mark_is_told_so(published: Published, out: Path) -> None:
    mark_image(published, 9, 6, size=(30, 40))
    words = r"30 × 40 pixels, the annotations say 40 × 30 because its EXIF orientation mark, 6, is to turn it: turn"
    with pytest.raises(DataError, match=words):
        published.prepare(out)
    result = published.prepare(out, skip_invalid=True)
    assert "notes" not in result.counts


@pytest.mark.parametrize(("orientation", "size"), [(1, (30, 40)), (3, (30, 40)), (6, (20, 40))])
def test_another_contradiction_is_not_put_down_to_the_mark(
    published: Published, out: Path, orientation: int, size: tuple[int, int]
) -> None:
    mark_image(published, 9, orientation, size)
    with pytest.raises(DataError, match=r"the annotations say 40 × 30(; correct|$)"):
        published.prepare(out)


def test_a_damaged_exif_block_is_no_hindrance(published: Published, out: Path) -> None:
    Image.new("RGB", (40, 30)).save(published.image(9), exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    assert "notes" not in published.prepare(out).counts


def test_an_interrupted_run_that_goes_on_notes_finished_shards_too(published: Published, out: Path) -> None:
    mark_image(published, 7, 6)

    def stop(done: int, total: int, remark: str) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), set_sink(progress=stop):
        prepare.run(PrepareSettings(dataset="grefcoco"), published.annotations, [published.images], out)
    assert published.prepare(out).counts["notes"] == {"image with an EXIF orientation mark": 1}
