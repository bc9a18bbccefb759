"""Zero-shot models in Python: `Grounder` and `load_pretrained` answer as `igvg predict` does, to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pipelines import Grounder, Grounding, load_pretrained
from pipelines.data.image_queries import query_images
from pipelines.prediction.families import FAMILIES, default_settings
from pipelines.stages import predict_images
from shards.errors import CheckpointError, SettingsError
from shards.masks import encode_mask
from tests.support.zero_shot_models import need_torchvision, save_model

NAME = "noise.png"
TEXTS = ["the red car", "A dog.", "the two red cars", "left", "a text that has many more tokens than the model takes"]
LOW = 0.02
# The last text is too long for some families.
pytestmark = pytest.mark.filterwarnings("ignore:the text:UserWarning")


FAMILY_NAMES = [
    "grounding-dino",
    "mm-grounding-dino",
    "owlvit",
    "owlv2",
    *map(need_torchvision, ("omdet-turbo", "sam3")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, and very small models, made when a test asks for them."""
    folder = tmp_path_factory.mktemp("models")
    Image.effect_noise((50, 40), 60).convert("RGB").save(folder / NAME)
    return folder


def open_model(folder: Path, family: str) -> Path:
    return folder / family if (folder / family).is_dir() else save_model(family, folder / family)


def run_command(folder: Path, family: str, out: Path, **changes: Any) -> list[dict[str, Any]]:
    """The lines of `igvg predict` on the image."""
    masks = changes.pop("masks", None)
    settings = replace(default_settings(folder / family), workers=0, threshold=LOW, **changes)
    predict_images.run_on_images(settings, folder / family, query_images([folder / NAME], TEXTS), out, masks=masks)
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def to_lines(results: list[Grounding]) -> list[dict[str, Any]]:
    """Results as lines of a prediction file."""
    return [
        {"id": f"{NAME}/{index}", "boxes": result.boxes.tolist(), "scores": result.scores.tolist()}
        | ({} if result.mask is None else {"mask": encode_mask(result.mask.numpy())})
        | {"no_target": result.no_target}
        for index, result in enumerate(results)
    ]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_results_equal_those_of_the_command_to_the_bit(family: str, folder: Path, tmp_path: Path) -> None:
    checkpoint = open_model(folder, family)
    lines = run_command(folder, family, tmp_path / "out")
    results = Grounder.from_pretrained(checkpoint, device="cpu").predict(folder / NAME, TEXTS, threshold=LOW)
    assert to_lines(results) == lines
    assert any(line["boxes"] for line in lines)
    for result, text in zip(results, TEXTS, strict=True):
        has_masks = FAMILIES[family].has_masks
        assert (result.text, result.size, result.points) == (text, (40, 50), None)
        assert (result.masks is not None) == ("masks" in result) == has_masks
        assert (result.existence is not None) == (family == "sam3")
        assert repr(result)
        assert result._repr_png_()


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_steps_of_load_pretrained_answer_as_the_command_to_the_bit(
    family: str, folder: Path, tmp_path: Path
) -> None:
    checkpoint = open_model(folder, family)
    lines = run_command(folder, family, tmp_path / "out", batch_size=len(TEXTS))
    model, processor = load_pretrained(checkpoint)
    with Image.open(folder / NAME) as image:
        inputs = processor(images=image, text=TEXTS, return_tensors="pt")
        sizes = [(image.height, image.width)]
    results = processor.post_process_grounding(model(**inputs), target_sizes=sizes, threshold=LOW, text_labels=TEXTS)
    assert to_lines(results) == lines
    assert [result.text for result in results] == TEXTS


def test_masks_for_boxes_are_those_of_the_command(folder: Path, tmp_path: Path) -> None:
    checkpoint, sam = open_model(folder, "owlvit"), open_model(folder, "sam")
    lines = run_command(folder, "owlvit", tmp_path / "out", masks=sam, batch_size=2)
    grounder = Grounder.from_pretrained(checkpoint, masks=sam, device="cpu")
    results = grounder.predict(folder / NAME, TEXTS, threshold=LOW, batch_size=2)
    assert to_lines(results) == lines
    for result in results:
        assert result.masks is not None
        assert result.mask is not None
        assert torch.equal(result.masks.any(dim=0), result.mask)


def test_thresholds_are_those_of_the_family(folder: Path) -> None:
    grounder = Grounder.from_pretrained(open_model(folder, "owlvit"), device="cpu")
    (default,), (low,) = (grounder.predict(folder / NAME, "dog", **given) for given in ({}, {"threshold": 0.1}))
    assert torch.equal(default.scores, low.scores)
    (none,) = grounder.predict(folder / NAME, "dog", threshold=1)
    assert none.no_target
    with pytest.raises(SettingsError, match="OWL-ViT has no mask_source; its thresholds are threshold"):
        grounder.predict(folder / NAME, "dog", mask_source="merge")
    with pytest.raises(SettingsError, match="threshold = 7"):
        grounder.predict(folder / NAME, "dog", threshold=7)


def test_a_text_that_is_cut_is_warned_of(folder: Path) -> None:
    checkpoint = open_model(folder, "owlvit")
    words = r'the text "a text that .*" has more than the 16 tokens that the network takes'
    with pytest.warns(UserWarning, match=words):
        Grounder.from_pretrained(checkpoint, device="cpu").predict(folder / NAME, TEXTS)
    with pytest.warns(UserWarning, match=words):
        load_pretrained(checkpoint)[1](images=folder / NAME, text=TEXTS)
    with pytest.warns(UserWarning, match="more than the 50 tokens"):
        Grounder.from_pretrained("shapes", device="cpu").predict(folder / NAME, "star " * 60)


def test_masks_that_do_not_fit_the_model_are_refused(folder: Path) -> None:
    owl, sam = open_model(folder, "owlvit"), open_model(folder, "sam")
    with pytest.raises(SettingsError, match="igvg's own network gives masks"):
        Grounder.from_pretrained("shapes", masks=sam)
    with pytest.raises(CheckpointError, match="take --masks from"):
        Grounder.from_pretrained(owl, masks=owl)
