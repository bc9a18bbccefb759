"""`igvg predict` with zero-shot models: resumed, by two processes, with masks of SAM, on own images, and refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import SamModel

from pipelines.config.settings import PredictSettings, ZeroShotSettings
from pipelines.data.image_decoding import decode_image
from pipelines.data.image_queries import query_images
from pipelines.prediction import zero_shot_chunks
from pipelines.prediction.box_masks import load_segmenter
from pipelines.prediction.families import default_settings
from pipelines.prediction.transformers_model import load_model
from pipelines.stages import convert, predict, predict_images
from pipelines.stages.inputs import locate_raw
from shards.errors import ArtifactError, CheckpointError, DataError, SettingsError
from shards.masks import decode_mask, encode_mask
from shards.progress import set_sink
from shards.reader import ShardReader
from tests.support.drawn_shards import write_noise
from tests.support.launched_processes import torchrun
from tests.support.pipeline_runs import run_here
from tests.support.zero_shot_models import save_model

SETTINGS = ZeroShotSettings(split="val", workers=0, threshold=0.1)
THREE = ((), (0,), (0, 1))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for family in ("owlvit", "sam"):
        save_model(family, folder / family)
    return folder


def read_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_an_interrupted_prediction_goes_on_and_ends_with_the_same_bytes(
    models: Path, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zero_shot_chunks, "CHUNK_SIZE", 6)

    def interrupt(done: int, total: int, remark: str) -> None:
        if done == 6:
            raise KeyboardInterrupt

    where = (models / "owlvit", pipeline / "shards")
    with pytest.raises(KeyboardInterrupt), set_sink(progress=interrupt):
        predict.run(SETTINGS, *where, tmp_path / "two")
    first = tmp_path / "two" / "parts" / "predictions.part-00000.jsonl"
    assert [file.name for file in first.parent.iterdir()] == [first.name]
    times = [first.stat().st_mtime_ns]
    with set_sink(progress=lambda done, total, remark: times.append(first.stat().st_mtime_ns)):
        predict.run(SETTINGS, *where, tmp_path / "two")
    assert len(times) > 2
    assert len(set(times)) == 1
    predict.run(SETTINGS, *where, tmp_path / "one")
    one, two = ((tmp_path / name / "predictions.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two
    assert not first.parent.exists()
    assert predict.run(SETTINGS, *where, tmp_path / "two").cached


def test_two_processes_predict_what_one_predicts(models: Path, tmp_path: Path) -> None:
    # 291 expressions: three chunks, the last one shorter.
    shards = write_noise(tmp_path / "noise", 97, THREE)
    words = ["predict", "--checkpoint", models / "owlvit", "--shards", shards, "--split", "val", "--set", "workers=0"]
    run_here(*words, "--out", tmp_path / "one")
    together = torchrun("-m", "igvg_cli", *words, "--out", tmp_path / "two")
    assert together.returncode == 0, together.stderr
    one, two = ((tmp_path / name / "predictions.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two
    assert len(one.splitlines()) == 291
    assert json.loads((tmp_path / "two" / "artifact.json").read_text())["counts"]["processes"] == 2


def test_workers_do_not_change_predictions(models: Path, pipeline: Path, tmp_path: Path) -> None:
    where = (models / "owlvit", pipeline / "shards")
    alone = predict.run(SETTINGS, *where, tmp_path / "alone", masks=models / "sam")
    helped = predict.run(
        ZeroShotSettings(split="val", workers=2, threshold=0.1), *where, tmp_path / "helped", masks=models / "sam"
    )
    assert alone.artifact is not None
    assert helped.artifact is not None
    assert alone.artifact.fingerprint == helped.artifact.fingerprint
    assert read_lines(tmp_path / "alone") == read_lines(tmp_path / "helped")


def test_the_masks_of_sam_are_those_of_its_own_processor_for_the_boxes(
    models: Path, pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict.run(SETTINGS, models / "owlvit", pipeline / "shards", tmp_path / "out", masks=models / "sam")
    lines = {line["id"]: line for line in read_lines(tmp_path / "out")}
    model, processor = load_model(models / "sam", "SamModel", "SamProcessor")
    reader = ShardReader(pipeline / "shards", "val")
    areas = []
    for position in range(len(reader)):
        record = reader.record(position)
        image = Image.fromarray(decode_image(reader.image(position), record.file_name))
        line = lines[record.expressions[0].id]
        inputs = processor(images=image, input_boxes=[line["boxes"]], return_tensors="pt")
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        with torch.inference_mode():
            outputs = model(
                pixel_values=inputs["pixel_values"], input_boxes=inputs["input_boxes"].float(), multimask_output=False
            )
        masks = processor.post_process_masks(outputs.pred_masks, *sizes)[0][:, 0].numpy()
        assert line["mask"] == encode_mask(masks.any(axis=0))
        areas.append(decode_mask(line["mask"]).mean())
    assert 0 < min(areas) <= max(areas) < 1
    capsys.readouterr()
    run_here("score", tmp_path / "out", "--shards", pipeline / "shards", "--split", "val", "--format", "json")
    assert json.loads(capsys.readouterr().out)["metrics"]["gIoU"] is not None


def test_a_mask_model_prepares_and_encodes_an_image_once_for_its_neighboring_expressions(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = load_segmenter(models / "sam", "SamModel", "SamProcessor", torch.device("cpu"))
    draw = np.random.default_rng(0)
    image = draw.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    boxes = [np.sort(draw.uniform(0, 40, (count, 2, 2)), axis=1).reshape(-1, 4) for count in (2, 0, 3)]
    alone = [segmenter.segment(image, [each], "fp32")[0] for each in boxes]
    calls: list[str] = []

    def count(kind: type[Any], name: str) -> None:
        called = getattr(kind, name)

        def counted(self: Any, *inputs: Any, **options: Any) -> Any:
            calls.append(name)
            return called(self, *inputs, **options)

        monkeypatch.setattr(kind, name, counted)

    count(type(segmenter.processor.image_processor), "preprocess")
    count(SamModel, "get_image_embeddings")
    together = segmenter.segment(image, boxes, "fp32")
    assert calls == ["preprocess", "get_image_embeddings"]
    assert [masks.shape for masks in together] == [(2, 40, 50), (0, 40, 50), (3, 40, 50)]
    for masks, expected in zip(together, alone, strict=True):
        assert np.array_equal(masks, expected)


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None or not hasattr(transformers, "Sam2Model"),
    reason="the processor of SAM 2 needs torchvision and a transformers that has it",
)
def test_the_masks_of_sam_2_are_those_of_its_own_processor_for_the_boxes(models: Path, tmp_path: Path) -> None:
    sam2 = save_model("sam2", tmp_path / "sam2")
    file = tmp_path / "noise.png"
    Image.effect_noise((50, 40), 60).convert("RGB").save(file)
    texts = ["the red car", "a dog"]
    queries = query_images([file], texts)
    predict_images.run_on_images(SETTINGS, models / "owlvit", queries, tmp_path / "out", masks=sam2)
    model, processor = load_model(sam2, "Sam2Model", "Sam2Processor")
    lines = read_lines(tmp_path / "out")
    assert all(line["boxes"] for line in lines)
    for line in lines:
        inputs = processor(images=Image.open(file), input_boxes=[line["boxes"]], return_tensors="pt")
        with torch.inference_mode():
            outputs = model(
                pixel_values=inputs["pixel_values"], input_boxes=inputs["input_boxes"].float(), multimask_output=False
            )
        masks = processor.post_process_masks(outputs.pred_masks, inputs["original_sizes"])[0][:, 0].numpy()
        assert line["mask"] == encode_mask(masks.any(axis=0))
        assert masks.shape == (len(line["boxes"]), 40, 50)


def test_own_images_get_an_overlay_for_every_text(models: Path, tmp_path: Path) -> None:
    Image.effect_noise((50, 40), 60).convert("RGB").save(tmp_path / "noise.png")
    texts = ["the red car", "a text that has many more tokens than the model takes"]
    for name, masks in (("boxes", None), ("masks", models / "sam")):
        queries = query_images([tmp_path / "noise.png"], texts)
        result = predict_images.run_on_images(SETTINGS, models / "owlvit", queries, tmp_path / name, masks=masks)
        assert {file.name for file in (tmp_path / name / "overlays").iterdir()} == {
            "noise-png-0.png",
            "noise-png-1.png",
        }
        assert [line["id"] for line in read_lines(tmp_path / name)] == ["noise.png/0", "noise.png/1"]
        assert result.counts["cut"] == 1
        assert "more than the 16 tokens" in result.counts["notes"][0]
    labels = convert.export_images("labelme", tmp_path / "boxes", None, tmp_path / "labels")
    assert labels.counts["boxes"] > 0 == labels.counts["polygons"]
    back = convert.import_labelme([tmp_path / "labels"], None, tmp_path / "back.jsonl")
    assert (tmp_path / "back.jsonl").read_bytes() == (tmp_path / "boxes" / "predictions.jsonl").read_bytes()
    assert back.report is not None
    assert back.report.expressions == len(texts)


def test_a_zero_shot_prediction_leaves_no_raw_outputs_and_says_so(models: Path, pipeline: Path, tmp_path: Path) -> None:
    predict.run(SETTINGS, models / "owlvit", pipeline / "shards", tmp_path / "out")
    assert not (tmp_path / "out" / "raw").exists()
    with pytest.raises(DataError, match=r"zero-shot model, which leaves no raw outputs; predict again"):
        locate_raw(tmp_path / "out")


def test_another_threshold_is_another_artifact(models: Path, pipeline: Path, tmp_path: Path) -> None:
    where = (models / "owlvit", pipeline / "shards", tmp_path / "out")
    predict.run(SETTINGS, *where)
    with pytest.raises(ArtifactError, match=r"threshold 0.1 → 0.4"):
        predict.run(ZeroShotSettings(split="val", workers=0, threshold=0.4), *where)
    with pytest.raises(ArtifactError, match="masks"):
        predict.run(SETTINGS, *where, masks=models / "sam")


@pytest.mark.parametrize("pattern", ["config.json", "*processor_config.json", "tokenizer.json", "vocab.json"])
def test_every_file_that_transformers_reads_is_part_of_the_fingerprint(
    pattern: str, models: Path, pipeline: Path, tmp_path: Path
) -> None:
    shutil.copytree(models / "owlvit", tmp_path / "copy")
    (file,) = (tmp_path / "copy").glob(pattern)
    file.write_text(file.read_text() + " ")
    stages = [
        predict.describe(SETTINGS, checkpoint, pipeline / "shards", tmp_path / "out")
        for checkpoint in (models / "owlvit", tmp_path / "copy")
    ]
    assert stages[0].fingerprint != stages[1].fingerprint


def test_settings_that_do_not_fit_the_model_are_refused(models: Path, pipeline: Path, tmp_path: Path) -> None:
    shards, out = pipeline / "shards", tmp_path / "out"
    of_dino = ZeroShotSettings(split="val", threshold=0.1, text_threshold=0.2)
    with pytest.raises(SettingsError, match="OWL-ViT has no text_threshold; its thresholds are threshold"):
        predict.run(of_dino, models / "owlvit", shards, out)
    with pytest.raises(SettingsError, match="is a model of OWL-ViT, not igvg's own network"):
        predict.run(PredictSettings(split="val"), models / "owlvit", shards, out)
    with pytest.raises(SettingsError, match="igvg's own network gives masks"):
        predict.run(PredictSettings(split="val"), pipeline / "run", shards, out, masks=models / "sam")
    with pytest.raises(CheckpointError, match=r"'owlvit'.*sam, sam2"):
        predict.run(SETTINGS, models / "owlvit", shards, out, masks=models / "owlvit")
    three = tmp_path / "sam3"
    three.mkdir()
    (three / "config.json").write_text('{"model_type": "sam3_video"}')
    (three / "model.safetensors").touch()
    with pytest.raises(SettingsError, match="SAM 3 gives masks itself"):
        predict.run(default_settings(three), three, shards, out, masks=models / "sam")
    assert not out.exists()


def test_a_folder_that_cannot_be_trusted_or_is_not_whole_is_refused(
    models: Path, pipeline: Path, tmp_path: Path
) -> None:
    shards, out = pipeline / "shards", tmp_path / "out"
    pickled = tmp_path / "pickled"
    shutil.copytree(models / "owlvit", pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="found only weights in a pickle"):
        predict.run(SETTINGS, pickled, shards, out)
    hub = tmp_path / "hub"
    shutil.copytree(models / "owlvit", hub)
    config = json.loads((hub / "config.json").read_text())
    config["text_config"]["attn_implementation"] = "someone/kernel"
    (hub / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="asks for code from the hub"):
        predict.run(SETTINGS, hub, shards, out)
    config["text_config"].pop("attn_implementation")
    config["text_config"]["num_hidden_layers"] += 1
    (hub / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"16 tensors are missing: .*layers"):
        predict.run(SETTINGS, hub, shards, out)
    (hub / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be loaded by transformers"):
        predict.run(SETTINGS, hub, shards, out)
    assert not out.exists()


@pytest.mark.parametrize("family", ["grounding-dino", "owlvit"])
def test_a_model_without_the_files_of_its_tokenizer_is_refused(family: str, pipeline: Path, tmp_path: Path) -> None:
    folder = save_model(family, tmp_path / "copy")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"has no vocabulary; copy|cannot be loaded by transformers"):
        predict.run(replace(default_settings(folder), split="val"), folder, pipeline / "shards", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_tokenizer_of_another_model_is_one_line(workers: int, tmp_path: Path) -> None:
    Image.effect_noise((50, 40), 60).convert("RGB").save(tmp_path / "noise.png")
    folder = save_model("grounding-dino", tmp_path / "copy")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary.update({word: 5000 + index for word, index in vocabulary.items() if len(word.strip("#")) == 1})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = replace(default_settings(folder), workers=workers)
    queries = query_images([tmp_path / "noise.png"], ["a dog"])
    with pytest.raises(CheckpointError, match=r"^the model, its processor and its tokenizer do not fit together \("):
        predict_images.run_on_images(settings, folder, queries, tmp_path / "out")
