"""On a GPU: the same losses, gradients and predictions as on the CPU, and no step that waits for the device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from safetensors.torch import load_file

from pipelines.config.presets import train_preset
from pipelines.model import IGVGModel
from pipelines.stages import train
from pipelines.training.losses import compute_losses
from shards.synthetic.writer import write_refcoco
from tests.benchmarks.accelerator import move_batch
from tests.benchmarks.network import make_batch, make_step
from tests.support.paths import ROOT
from tests.support.small_training import small_settings, write_set

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def exact_float32() -> None:
    """Products of float32 are not rounded to TF32."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def test_losses_and_gradients_equal_those_of_the_cpu() -> None:
    settings = train_preset("tiny")
    settings = replace(settings, model=replace(settings.model, dropout=0.0, drop_path=0.0))
    torch.manual_seed(3)
    model = IGVGModel(settings.model).train()
    batch = make_batch(settings, 4, 9)
    found = {}
    for device in ("cpu", "cuda"):
        model, placed = model.to(device), move_batch(batch, torch.device(device))
        model.zero_grad()
        output = model(placed["pixel_values"], placed["input_ids"], placed["attention_mask"])
        losses = compute_losses(output, placed["targets"], settings.matching, settings.loss)
        losses["total"].backward()
        gradients = {
            name: value.grad.to("cpu", copy=True) for name, value in model.named_parameters() if value.grad is not None
        }
        found[device] = ({name: float(value.detach()) for name, value in losses.items()}, gradients)
    (losses, gradients), (gpu_losses, gpu_gradients) = found["cpu"], found["cuda"]
    assert gpu_losses == pytest.approx(losses, rel=1e-4, abs=1e-5)
    assert gpu_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        difference = (gpu_gradients[name] - gradient).norm() / gradient.norm().clamp(min=1e-3)
        assert difference < 2e-3, name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_synchronizes_with_the_device_for_the_matching_alone(precision: str) -> None:
    settings = replace(train_preset("tiny"), precision=precision)
    model = IGVGModel(settings.model).cuda()
    step = make_step(settings, model, move_batch(make_batch(settings, 4, 9), torch.device("cuda")))
    step()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # The costs of all layers come to the CPU in one transfer, the pairs go back in one.
    assert len(caught) <= 2, [str(warning.message) for warning in caught]


def test_predictions_equal_those_of_the_cpu(tmp_path: Path) -> None:
    write_refcoco(tmp_path / "published", seed=5, train_images=6, held_out_images=2)
    predict = [
        "predict", "--checkpoint", "shapes", "--image", str(next((tmp_path / "published").rglob("*.jpg")).parent),
        "--text", "the red star", "--text", "the circle on the left",
    ]  # fmt: skip
    lines = {}
    for device, visible in (("cuda", os.environ.get("CUDA_VISIBLE_DEVICES", "0")), ("cpu", "")):
        out = tmp_path / device
        words = [sys.executable, "-m", "igvg_cli", *predict, "--out", str(out)]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": visible}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        lines[device] = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(lines["cpu"]) >= 12
    for found, expected in zip(lines["cuda"], lines["cpu"], strict=True):
        assert (found["id"], found["no_target"]) == (expected["id"], expected["no_target"])
        assert np.allclose(found["boxes"], expected["boxes"], atol=0.1)
        masks = [coco_mask.decode(line["mask"]).astype(bool) for line in (found, expected)]
        assert (masks[0] ^ masks[1]).sum() <= 0.002 * masks[0].size


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_a_training_runs_and_a_second_one_ends_close_to_it(tmp_path: Path, precision: str) -> None:
    shards = write_set(tmp_path)
    settings = small_settings(max_steps=6, epochs=5, precision=precision)
    train.run(settings, [shards], tmp_path / "first")
    train.run(settings, [shards], tmp_path / "second")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    # Sums of some kernels have no fixed order on a GPU.
    for name, tensor in first.items():
        assert torch.allclose(second[name].float(), tensor.float(), atol=2e-3), name
    assert json.loads((tmp_path / "first" / "artifact.json").read_text())["counts"]["precision"] == precision
