"""A checkpoint in one line of Python: it answers as `igvg predict` does, to the bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines import Grounder, Grounding, load_pretrained
from pipelines.data.image_decoding import read_image
from shards.errors import CheckpointError, SettingsError
from shards.masks import encode_mask
from shards.synthetic.writer import write_refcoco
from tests.support.pipeline_runs import igvg
from tests.support.small_network import save_small_network

NAME = "shapes.jpg"
TEXTS = ["the red star", "The blue square, on the left!", "a green circle", "star", "two yellow hearts"]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of shapes."""
    folder = tmp_path_factory.mktemp("drawn")
    write_refcoco(folder, seed=21, train_images=1, held_out_images=1)
    return min((folder / "images" / "train2014").iterdir()).rename(folder / NAME)


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    """The shipped network."""
    return Grounder.from_pretrained("shapes", device="cpu")


def test_the_package_exports_the_names_and_loads_nothing_for_them() -> None:
    code = "import sys, pipelines; print(sorted({'torch', 'numpy', 'transformers', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    with pytest.raises(ImportError):
        from pipelines import Ground  # type: ignore[attr-defined]  # noqa: F401


def test_the_first_answer_loads_neither_a_compiler_nor_transformers() -> None:
    code = (
        "import sys, numpy; from pipelines import Grounder\n"
        "Grounder.from_pretrained('shapes', device='cpu').predict(numpy.zeros((9, 9, 3), 'u1'), 'star')\n"
        "print(sorted({'torch._dynamo', 'sympy', 'transformers', 'accelerate'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_results_equal_those_of_the_command_to_the_bit(image: Path, tmp_path: Path, precision: str) -> None:
    words = [word for text in TEXTS for word in ("--text", text)]
    settings = ("batch_size=2", f"precision={precision}", "workers=0", "postprocess.score_threshold=0.4")
    sets = [word for setting in settings for word in ("--set", setting)]
    done = igvg("predict", "--checkpoint", "shapes", "--image", image, *words, "--out", tmp_path / "out", *sets)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    grounder = Grounder.from_pretrained("shapes", device="cpu", precision=precision)  # type: ignore[arg-type]
    results = grounder.predict(image, TEXTS, batch_size=2, threshold=0.4)
    assert list_answers(results) == lines
    assert any(line["boxes"] for line in lines)


def test_the_loaded_network_and_processor_answer_as_the_command_to_the_bit(image: Path, tmp_path: Path) -> None:
    words = [word for text in TEXTS for word in ("--text", text)]
    done = igvg("predict", "--checkpoint", "shapes", "--image", image, *words, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    model, processor = load_pretrained("shapes")
    with Image.open(image) as opened:
        inputs = processor(images=opened, text=TEXTS, return_tensors="pt")
        sizes = [(opened.height, opened.width)]
    results = processor.post_process_grounding(model(**inputs), target_sizes=sizes, threshold=0.7)
    assert list_answers(results) == lines
    assert [result.text for result in results] == TEXTS


def test_batches_end_where_those_of_the_command_end(grounder: Grounder) -> None:
    sizes: list[int] = []
    hook = grounder.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))  # type: ignore[union-attr]
    with hook:
        grounder.predict(np.zeros((8, 8, 3), dtype=np.uint8), ["star"] * 131, batch_size=50)
    assert sizes == [50, 50, 28, 3]


def list_answers(results: list[Grounding]) -> list[dict[str, Any]]:
    """Results as lines of a prediction file."""
    return [
        {"id": f"{NAME}/{index}", "boxes": result.boxes.tolist(), "scores": result.scores.tolist(),
         "mask": encode_mask(result.mask.numpy()), "no_target": result.no_target}
        for index, result in enumerate(results)
    ]  # fmt: skip


def test_an_image_may_be_a_path_an_image_an_array_or_a_tensor(image: Path, grounder: Grounder) -> None:
    pixels = read_image(image)
    with Image.open(image) as opened:
        images = [image, str(image), opened, pixels, torch.tensor(pixels).permute(2, 0, 1)]
        first, *others = [grounder.predict(each, "the red star")[0] for each in images]
    for other in others:
        assert torch.equal(first.boxes, other.boxes)
        assert torch.equal(first.mask, other.mask)


def test_every_text_has_a_result_in_order(image: Path, grounder: Grounder) -> None:
    results = grounder.predict(image, TEXTS, batch_size=2)
    assert [result.text for result in results] == TEXTS
    assert [result.text for result in grounder.predict(image, "star")] == ["star"]


def test_settings_of_post_processing_can_be_given(image: Path, grounder: Grounder) -> None:
    (all_of_them,) = grounder.predict(image, "star", threshold=0)
    (without,) = grounder.predict(image, "star", threshold=0, nms=True, nms_iou=0.3)
    assert 0 < len(without.boxes) < len(all_of_them.boxes)
    with pytest.raises(SettingsError, match="did you mean mask_threshold"):
        grounder.predict(image, "star", mask_treshold=0.2)


@pytest.mark.parametrize("texts", [[], [""], ["star", "?!"], [7]])
def test_a_text_without_a_word_is_refused(grounder: Grounder, texts: list[str]) -> None:
    with pytest.raises(SettingsError, match=r"say what to look for|give a string"):
        grounder.predict(np.zeros((8, 8, 3), dtype=np.uint8), texts)


def test_an_unknown_precision_or_batch_size_is_refused(image: Path, grounder: Grounder) -> None:
    with pytest.raises(SettingsError, match="precision is 'fp8'; give auto, fp32, tf32, bf16, fp16"):
        Grounder.from_pretrained("shapes", precision="fp8")  # type: ignore[arg-type]
    for batch_size in (0, 2.5, "4"):
        with pytest.raises(SettingsError, match="give a whole number of at least 1"):
            grounder.predict(image, "star", batch_size=batch_size)  # type: ignore[arg-type]
    for threshold in ("high", [], 2):
        with pytest.raises(SettingsError, match="score_threshold = "):
            grounder.predict(image, "star", threshold=threshold)  # type: ignore[arg-type]
    (result,) = grounder.predict(image, "star", threshold=np.float32(0.5))
    (same,) = grounder.predict(image, "star", threshold=torch.tensor(0.5))  # type: ignore[arg-type]
    assert torch.equal(result.boxes, same.boxes)


def test_an_unknown_device_or_revision_is_one_line(tmp_path: Path) -> None:
    save_small_network(tmp_path)
    for device in ("cuda:99", "gpu"):
        with pytest.raises(SettingsError, match=f"device '{device}' cannot be used"):
            Grounder.from_pretrained(tmp_path, device=device)
    with pytest.raises(CheckpointError, match="no revision v2"):
        Grounder.from_pretrained(tmp_path, revision="v2")
