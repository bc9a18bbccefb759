"""The processor: rows of images and expressions, and results in igvg's and in transformers' own forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from pipelines import load_pretrained
from pipelines.data.image_transforms import normalize_images, resize_image
from pipelines.data.tokenizer import tokenize_expressions
from pipelines.huggingface.image_processing import IGVGImageProcessor
from pipelines.huggingface.outputs import merge_segments
from pipelines.huggingface.processing import IGVGProcessor, pair_texts
from pipelines.pretrained import load_checkpoint
from shards.errors import CheckpointError, SettingsError
from tests.support.small_network import save_small_network

IMAGES = [np.random.default_rng(seed).integers(0, 255, (20, 30 + seed, 3), dtype=np.uint8) for seed in (0, 1)]
SIZES = [(20, 30), (20, 31)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small network."""
    return save_small_network(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[Any, IGVGProcessor]:
    """Its network and processor."""
    return load_pretrained(folder)


def test_inputs_are_those_that_the_command_makes(loaded: tuple[Any, IGVGProcessor]) -> None:
    _, processor = loaded
    inputs = processor(images=IMAGES, text=["red star", "star"], return_tensors="pt")
    resized = torch.from_numpy(np.stack([resize_image(image, 32) for image in IMAGES]))
    assert torch.equal(inputs["pixel_values"], normalize_images(resized))
    ids = tokenize_expressions(processor.tokenizer, ["red star", "star"], 9)
    assert [
        row[mask.bool()].tolist() for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ] == ids
    assert inputs["input_ids"][inputs["attention_mask"] == 0].tolist() == [1] * (
        2 * max(map(len, ids)) - sum(map(len, ids))
    )


@pytest.mark.parametrize(
    ("text", "images", "rows"),
    [
        ("a", 1, [(0, "a")]),
        ("a", 2, [(0, "a"), (1, "a")]),
        (["a", "b"], 1, [(0, "a"), (0, "b")]),
        (["a", "b"], 2, [(0, "a"), (1, "b")]),
        ([["a", "b"], ["c"]], 2, [(0, "a"), (0, "b"), (1, "c")]),
        (["a", "b"], None, [(0, "a"), (0, "b")]),
    ],
)  # fmt: skip
def test_rows_pair_images_and_expressions(text: Any, images: int | None, rows: list[tuple[int, str]]) -> None:
    assert list(zip(*pair_texts(text, images), strict=True)) == rows


@pytest.mark.parametrize(
    ("text", "images"),
    [(["a", "b", "c"], 2), ([["a"]], 2), ([], 1), (["?"], 1), ([["a", 7]], 1), (7, 1), ([None], 1), ([None, 7], 2)],
)
def test_rows_that_cannot_be_paired_are_refused(text: Any, images: int) -> None:
    with pytest.raises(SettingsError):
        pair_texts(text, images)


def test_images_or_text_alone_are_prepared_as_well(loaded: tuple[Any, IGVGProcessor]) -> None:
    _, processor = loaded
    assert set(processor(images=Image.fromarray(IMAGES[0]), return_tensors="pt")) == {"pixel_values"}
    assert set(processor(text="star", return_tensors="np")) == {"input_ids", "attention_mask"}
    with pytest.raises(SettingsError, match="give images, text or both"):
        processor()


def test_results_name_the_expressions_that_the_processor_was_given(loaded: tuple[Any, IGVGProcessor]) -> None:
    model, processor = loaded
    outputs = model(**processor(images=IMAGES, text=["Red star!", "a star"], return_tensors="pt"))
    results = processor.post_process_grounding(outputs, target_sizes=SIZES, threshold=0)
    assert [result.text for result in results] == ["Red star!", "a star"]
    assert [tuple(result.mask.shape) for result in results] == SIZES
    other = load_pretrained_processor(processor)
    assert other.post_process_grounding(outputs, SIZES, 0)[1].text is not None
    named = processor.post_process_grounding(outputs, SIZES, 0, text_labels=[["x"], ["y"]])
    assert [result.text for result in named] == ["x", "y"]
    for wrong in (
        {"target_sizes": SIZES * 2},
        {"text_labels": ["x"]},
        {"target_sizes": [(0, 5)]},
        {"target_sizes": SIZES[0]},
        {"threshold": "high"},
    ):
        with pytest.raises(SettingsError):
            processor.post_process_grounding(outputs, **wrong)


def load_pretrained_processor(processor: IGVGProcessor) -> IGVGProcessor:
    return IGVGProcessor(processor.image_processor, processor.tokenizer)


def test_detections_have_the_keys_and_types_of_grounding_dino(loaded: tuple[Any, IGVGProcessor]) -> None:
    model, processor = loaded
    outputs = model(**processor(images=IMAGES, text="star", return_tensors="pt"))
    results = processor.post_process_grounding(outputs, SIZES, threshold=0)
    found = processor.post_process_grounded_object_detection(outputs, threshold=0, target_sizes=torch.tensor(SIZES))
    for row, result in zip(found, results, strict=True):
        assert row.keys() == {"scores", "labels", "boxes", "text_labels"}
        assert row["boxes"].dtype == row["scores"].dtype == torch.float32
        assert row["text_labels"] == ["star"] * len(result.boxes)
        assert torch.equal(row["boxes"], result.boxes.float())
        assert torch.equal(row["scores"], result.scores.float())
    (first, _) = processor.post_process_grounded_object_detection(outputs, threshold=0)
    assert torch.allclose(first["boxes"] * torch.tensor([30, 20, 30, 20]), results[0].boxes.float(), atol=1e-4)


def test_segmentation_has_the_keys_of_mask2former(loaded: tuple[Any, IGVGProcessor]) -> None:
    model, processor = loaded
    outputs = model(**processor(images=IMAGES, text="star", return_tensors="pt"))
    options = {"threshold": 0, "mask_threshold": 0, "target_sizes": SIZES}
    for maps in (False, True):
        rows = processor.post_process_instance_segmentation(outputs, **options, return_binary_maps=maps)
        for row, size in zip(rows, SIZES, strict=True):
            assert row.keys() == {"segmentation", "segments_info"}
            count = len(row["segments_info"])
            assert count
            assert tuple(row["segmentation"].shape) == ((count, *size) if maps else size)
            assert [info.keys() for info in row["segments_info"]] == [{"id", "label_id", "was_fused", "score"}] * count


def test_the_later_of_two_overlapping_segments_covers_the_first_and_empty_ones_are_left_out() -> None:
    masks = torch.tensor([[[1, 1, 0]], [[0, 0, 0]], [[0, 1, 0]]], dtype=torch.bool)
    merged = merge_segments(masks, torch.tensor([0.9, 0.8, 0.7]), binary_maps=False)
    assert merged["segmentation"].tolist() == [[0, 1, -1]]
    assert [info["score"] for info in merged["segments_info"]] == pytest.approx([0.9, 0.7])


def test_what_the_processor_saves_igvg_and_transformers_load(loaded: tuple[Any, IGVGProcessor], tmp_path: Path) -> None:
    processor = loaded[1]
    processor.save_pretrained(tmp_path)
    again = IGVGProcessor.from_pretrained(tmp_path)
    inputs = {"images": IMAGES[0], "text": "red star", "return_tensors": "pt"}
    for name, tensor in processor(**inputs).items():
        assert torch.equal(again(**inputs)[name], tensor)
    assert again.image_processor.max_tokens == 9


def test_a_checkpoint_folder_says_what_the_image_processor_does(folder: Path) -> None:
    saved = json.loads((folder / "preprocessor_config.json").read_text())
    described = IGVGImageProcessor.from_pretrained(folder).to_dict()
    if transformers.__version__ < "5":
        assert described.pop("_processor_class") is None
    assert saved == described
    assert saved["antialias"] is False
    assert json.loads((folder / "processor_config.json").read_text()) == {"processor_class": "IGVGProcessor"}
    assert load_checkpoint(folder)[2] == saved["max_tokens"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"do_resizes": True}, "no setting do_resizes; did you mean do_resize"),
        ({"antialias": True}, "antialias is True; igvg's networks take False"),
        ({"image_mean": [0, 0, 0]}, "image_mean is"),
        ({"size": {"height": 32, "width": 64}}, "a square of whole pixels"),
        ({"size": {"shortest_edge": 32}}, "a square of whole pixels"),
    ],
)
def test_other_preprocessing_than_the_network_s_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        IGVGImageProcessor(**changes)
