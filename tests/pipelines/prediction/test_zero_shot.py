"""Zero-shot models of transformers: predictions equal what their own processors answer."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from pipelines.config.settings import ZeroShotSettings
from pipelines.data.image_decoding import decode_image
from pipelines.prediction.families import FAMILIES, Family, default_settings, find_family
from pipelines.prediction.transformers_model import load_model
from pipelines.prediction.zero_shot import count_tokens, fit_text, prepare_inputs
from shards.errors import CheckpointError
from shards.reader import ShardReader
from tests.support.pipeline_runs import run_here
from tests.support.zero_shot_models import make_clip_tokenizer, need_torchvision, save_model

LOW = 0.02


FAMILY_NAMES = [
    "grounding-dino", "mm-grounding-dino", "owlvit", "owlv2", *map(need_torchvision, ("omdet-turbo", "sam3"))
]  # fmt: skip


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Very small models, made when a test asks for them."""
    return tmp_path_factory.mktemp("zero-shot")


def open_checkpoint(folder: Path, family: str) -> Path:
    checkpoint = folder / family
    return checkpoint if checkpoint.is_dir() else save_model(family, checkpoint)


def predict(checkpoint: Path, shards: Path, out: Path, *words: str) -> list[dict[str, Any]]:
    run_here(
        "predict", "--checkpoint", checkpoint, "--shards", shards, "--split", "val", "--out", out,
        "--set", "workers=0", "--set", f"threshold={LOW}", *words,
    )  # fmt: skip
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def answer_alone(checkpoint: Path, family: Family, image: Any, text: str) -> dict[str, Any]:
    """What the family's own processor answers to one expression."""
    model, processor = load_model(checkpoint, family.model_class, family.processor_class)
    inputs = family.prepare(processor, [Image.fromarray(image)], [fit_text(processor.tokenizer, text, 16)])
    with torch.inference_mode():
        outputs = model(**inputs)
    settings = replace(family.settings, threshold=LOW)
    return family.postprocess(processor, outputs, [image.shape[:2]], settings)[0]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_boxes_of_a_family_are_those_of_its_own_processor_clipped_to_the_image(
    family: str, checkpoints: Path, pipeline: Path, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(checkpoints, family)
    predictions = predict(checkpoint, pipeline / "shards", tmp_path / "out", "--set", "batch_size=1")
    reader = ShardReader(pipeline / "shards", "val")
    record = reader.record(0)
    image = decode_image(reader.image(0), record.file_name)
    (prediction,) = [line for line in predictions if line["id"] == record.expressions[0].id]
    answer = answer_alone(checkpoint, FAMILIES[family], image, record.expressions[0].text)
    limits = np.array([record.width, record.height] * 2)
    boxes = answer["boxes"].double().numpy().clip(0, limits)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    assert kept.any()
    assert prediction["boxes"] == boxes[kept].tolist()
    assert prediction["scores"] == answer["scores"].double().numpy()[kept].tolist()
    assert ("mask" in prediction) == FAMILIES[family].has_masks
    assert not prediction["no_target"]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_an_image_is_prepared_once_for_its_neighboring_expressions(
    family: str, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = FAMILIES[family]
    _, processor = load_model(open_checkpoint(checkpoints, family), kind.model_class, kind.processor_class)
    draw = np.random.default_rng(0)
    first, second = (draw.integers(0, 255, (*size, 3), dtype=np.uint8) for size in ((40, 50), (60, 30)))
    images, texts = [first, first, second, second, second], ["a dog", "the red car", "left", "a car", "two"]
    expected = kind.prepare(processor, [Image.fromarray(image) for image in images], texts)
    image_processor, prepared = type(processor.image_processor), list[int]()
    preprocess = image_processor.preprocess

    def count(self: Any, images: Any, *inputs: Any, **options: Any) -> Any:
        prepared.append(len(images))
        return preprocess(self, images, *inputs, **options)

    monkeypatch.setattr(image_processor, "preprocess", count)
    found = prepare_inputs(kind, processor, images, texts).to_tensors(torch.device("cpu"))
    assert prepared == [2]
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, torch.as_tensor(np.asarray(expected[name]))), name


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_where_nothing_scores_above_the_threshold_there_is_no_target(
    family: str, checkpoints: Path, pipeline: Path, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(checkpoints, family)
    lines = predict(checkpoint, pipeline / "shards", tmp_path / "out", "--set", "threshold=1")
    assert all(line["no_target"] and line["boxes"] == [] for line in lines)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_predictions_are_scored_in_boxes_and_where_there_are_masks_in_masks(
    family: str, checkpoints: Path, pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = open_checkpoint(checkpoints, family)
    predict(checkpoint, pipeline / "shards", tmp_path / "out")
    capsys.readouterr()
    words = ("--shards", pipeline / "shards", "--split", "val", "--format", "json")
    run_here("score", tmp_path / "out", *words)
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["N-acc"] is not None
    assert metrics["F1score"] is not None
    assert (metrics["gIoU"] is not None) == FAMILIES[family].has_masks


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_thresholds_of_a_family_are_those_of_its_post_processing(family: str) -> None:
    processor, has_masks = getattr(transformers, FAMILIES[family].processor_class), FAMILIES[family].has_masks
    name = "post_process_instance_segmentation" if has_masks else "post_process_grounded_object_detection"
    function = getattr(processor, name)
    found = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name.endswith("threshold")
    }
    settings = FAMILIES[family].settings
    assert found == {name: getattr(settings, name) for name in found}
    named = {name for name in dir(settings) if name.endswith("threshold") and getattr(settings, name) is not None}
    assert named == set(found)


def test_the_settings_of_a_prediction_are_those_of_the_checkpoint(checkpoints: Path, pipeline: Path) -> None:
    checkpoint = open_checkpoint(checkpoints, "owlvit")
    assert default_settings(checkpoint) == ZeroShotSettings(threshold=0.1)
    assert find_family(pipeline / "run") is None
    assert find_family(checkpoint / "model.safetensors") is FAMILIES["owlvit"]


def test_a_model_of_another_kind_is_refused_with_those_that_are_supported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match=r"'bert'.*igvg, grounding-dino, .*sam3"):
        find_family(tmp_path)


def test_a_text_that_is_too_long_loses_its_last_words(tmp_path: Path) -> None:
    tokenizer = make_clip_tokenizer(tmp_path, 16)
    assert fit_text(tokenizer, "a red car", 16) == "a red car"
    assert fit_text(tokenizer, "the red cars on the left", 16) == "the red cars on"
    (alone,) = fit_text(tokenizer, "x" * 40, 16).split()
    assert 8 < count_tokens(tokenizer, alone) <= 16
