"""Files of one's own images: what a model cannot give is refused, and interrupted work is completed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from pipelines.config.settings import PostprocessSettings, PredictSettings, ZeroShotSettings
from pipelines.data.image_queries import query_images
from pipelines.report.image_outputs import ImageOutputs
from pipelines.stages import predict_images
from shards.errors import ArtifactError, SettingsError
from shards.masks import rle_area
from tests.support.zero_shot_models import save_model

SHAPES = Path("shapes")
SETTINGS = PredictSettings(workers=0)
ALL = ImageOutputs(save=("overlays", "masks", "cutouts", "json", "coco"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = Image.new("RGB", (60, 50), (210, 210, 210))
    pixels.paste((200, 30, 30), (10, 10, 40, 40))
    pixels.save(tmp_path / "a.png")
    return tmp_path / "a.png"


def list_files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_files_that_an_interruption_left_unfinished_are_written_again(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = query_images([image], ["the red square", "a dog"])

    def run(out: Path) -> None:
        predict_images.run_on_images(SETTINGS, SHAPES, queries, out, outputs=ALL)

    run(tmp_path / "whole")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(predict_images, "write_labelme", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "twice")
    assert not (tmp_path / "twice" / "artifact.json").exists()
    (tmp_path / "twice" / "masks" / "half.png").write_bytes(b"half")
    times = (tmp_path / "twice" / "overlays" / "a-png-0.png").stat().st_mtime_ns
    run(tmp_path / "twice")
    assert list_files(tmp_path / "twice") == list_files(tmp_path / "whole")
    # The chunk was finished: it is neither predicted nor drawn again.
    assert (tmp_path / "twice" / "overlays" / "a-png-0.png").stat().st_mtime_ns == times


def test_other_files_than_those_that_are_there_need_force(image: Path, tmp_path: Path) -> None:
    queries = query_images([image], ["a dog"])
    predict_images.run_on_images(SETTINGS, SHAPES, queries, tmp_path / "out")
    with pytest.raises(ArtifactError, match=r"save unset → \['masks'\]; choose another --out, or replace it with"):
        predict_images.run_on_images(SETTINGS, SHAPES, queries, tmp_path / "out", outputs=ImageOutputs(save=("masks",)))


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (ImageOutputs(save=("masks",)), "gives no masks to save; add --masks with a SAM checkpoint"),
        (ImageOutputs(save=("overlays", "cutouts")), "gives no masks to save"),
        (ImageOutputs(show=("attention",)), "--show attention needs igvg's own network"),
    ],
)
def test_what_a_zero_shot_model_does_not_give_is_refused_before_it_is_loaded(
    image: Path, tmp_path: Path, outputs: ImageOutputs, words: str
) -> None:
    folder = save_model("owlvit", tmp_path / "owlvit")
    (folder / "model.safetensors").unlink()
    settings, queries = ZeroShotSettings(workers=0), query_images([image], ["a dog"])
    with pytest.raises(SettingsError, match=words):
        predict_images.run_on_images(settings, folder, queries, tmp_path / "out", outputs=outputs)
    assert not (tmp_path / "out").exists()


def test_files_of_an_expression_without_a_target_hold_no_mask(image: Path, tmp_path: Path) -> None:
    settings = PredictSettings(workers=0, postprocess=PostprocessSettings(score_threshold=1.0))
    out = tmp_path / "out"
    predict_images.run_on_images(settings, SHAPES, query_images([image], ["the red square"]), out, outputs=ALL)
    prediction = json.loads((out / "predictions.jsonl").read_text())
    assert prediction["no_target"]
    assert rle_area(prediction["mask"]) > 0
    with Image.open(out / "masks" / "a.png-0.png") as mask:
        assert mask.size == (60, 50)
        assert mask.getbbox() is None
    assert [entry["file"] for entry in json.loads((out / "cutouts" / "index.json").read_text())] == [None]
    assert json.loads((out / "json" / "a.json").read_text())["shapes"] == []
    assert json.loads((out / "coco" / "segmentations.json").read_text()) == []


def test_boxes_alone_become_json_and_coco_with_the_sizes_of_the_images(image: Path, tmp_path: Path) -> None:
    folder = save_model("owlvit", tmp_path / "owlvit")
    settings, queries = ZeroShotSettings(workers=0, threshold=0.0), query_images([image], ["a dog"])
    outputs = ImageOutputs(save=("json", "coco"))
    result = predict_images.run_on_images(settings, folder, queries, tmp_path / "out", outputs=outputs)
    document = json.loads((tmp_path / "out" / "json" / "a.json").read_text())
    assert (document["imageWidth"], document["imageHeight"]) == (60, 50)
    annotations = json.loads((tmp_path / "out" / "coco" / "annotations.json").read_text())
    assert annotations["images"] == [
        {"id": 1, "file_name": "a.png", "width": 60, "height": 50, "caption": "a dog", "expression_id": "a.png/0",
         "original_id": 1}
    ]  # fmt: skip
    assert not (tmp_path / "out" / "coco" / "segmentations.json").exists()
    boxes = json.loads((tmp_path / "out" / "coco" / "boxes.json").read_text())
    assert len(boxes) == result.counts["files"]["coco"]["boxes"] > 0
