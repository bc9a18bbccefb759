"""The transformers model: the same tensors, weights and results as the plain network, and the same strict checks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from pipelines import load_pretrained
from pipelines.huggingface.configuration import IGVGPretrainedConfig
from pipelines.huggingface.model_output import IGVGObjectDetectionOutput
from pipelines.huggingface.modeling import IGVGForZeroShotObjectDetection
from pipelines.model import IGVGConfig, IGVGModel, IGVGOutput
from pipelines.model.cpu import optimize_for_cpu
from shards.errors import CheckpointError
from tests.support.small_network import CONFIG, save_small_network

INPUTS = (
    torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
    torch.tensor([[0, 5, 6, 2], [0, 7, 2, 1]]),
    torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
)
NAMES = [field.name for field in fields(IGVGOutput) if not field.name.startswith("aux")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of a small network."""
    return save_small_network(tmp_path / "run")


def load(folder: Path, **options: Any) -> IGVGForZeroShotObjectDetection:
    model = IGVGForZeroShotObjectDetection.from_pretrained(folder, **options)
    assert isinstance(model, IGVGForZeroShotObjectDetection)
    return model


def test_weights_buffers_and_outputs_equal_those_of_the_plain_network(folder: Path) -> None:
    plain, model = IGVGModel.from_pretrained(folder), load(folder)
    assert not model.training
    assert model.state_dict().keys() == plain.state_dict().keys()
    for (name, mine), (_, theirs) in zip(model.named_buffers(), plain.named_buffers(), strict=True):
        assert torch.equal(mine, theirs), name
    with torch.inference_mode():
        expected, found = plain(*INPUTS), model(*INPUTS)
    for name in NAMES:
        assert torch.equal(getattr(expected, name), getattr(found, name)), name
        assert found[name] is getattr(found, name)
    assert found.logits is found.class_logits
    assert found.pred_boxes is found.boxes


@pytest.mark.parametrize("kind", ["whole", "damaged"])
def test_loading_logs_nothing(folder: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    logger = transformers.utils.logging.get_logger("transformers")
    logger.addHandler(caplog.handler)
    try:
        if kind == "damaged":
            save_file({}, folder / "model.safetensors", metadata={"format": "pt"})
            with pytest.raises(CheckpointError, match="missing"):
                load(folder)
        else:
            load(folder)
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.messages


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_predict_from_images_of_any_precision(folder: Path, dtype: torch.dtype) -> None:
    model, (pixels, *text) = load(folder, dtype=dtype), INPUTS
    assert model.dtype == dtype
    with torch.inference_mode():
        exact, found, same = load(folder)(*INPUTS), model(pixels, *text), model(pixels.to(dtype), *text)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert load(folder)(*INPUTS).class_logits.dtype == torch.bfloat16
    assert torch.equal(found.boxes, same.boxes)
    assert found.boxes.isfinite().all()
    assert torch.allclose(found.existence_logits.float(), exact.existence_logits, atol=0.05)


def test_without_a_mask_every_token_counts_and_a_tuple_can_be_asked_for(folder: Path) -> None:
    model, (pixels, ids, _) = load(folder), INPUTS
    with torch.inference_mode():
        alone = model(pixels, ids)
        assert torch.equal(alone.boxes, model(pixels, ids, torch.ones_like(ids)).boxes)
        assert torch.equal(model(pixels, ids, return_dict=False)[1], alone.boxes)


def test_a_seed_draws_the_weights_of_the_plain_network() -> None:
    torch.manual_seed(3)
    plain = IGVGModel(CONFIG)
    torch.manual_seed(3)
    model = IGVGForZeroShotObjectDetection(IGVGPretrainedConfig(**vars(CONFIG)))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_what_transformers_saves_igvg_loads_and_the_other_way_round(folder: Path, tmp_path: Path) -> None:
    load(folder).save_pretrained(tmp_path / "saved")
    again = IGVGModel.from_pretrained(tmp_path / "saved")
    assert again.config == CONFIG
    for name, tensor in IGVGModel.from_pretrained(folder).state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_it_can_be_trained_and_optimized_like_the_plain_network(folder: Path) -> None:
    model = load(folder).train()
    model(*INPUTS).class_logits.sum().backward()
    assert model.class_head.weight.grad is not None
    with torch.inference_mode():
        faster = optimize_for_cpu(IGVGModel.from_pretrained(folder))(*INPUTS)
        assert torch.equal(optimize_for_cpu(load(folder))(*INPUTS).boxes, faster.boxes)


def test_float16_is_widened_unless_a_dtype_is_asked_for(folder: Path) -> None:
    file = folder / "model.safetensors"
    state = {name: t.half() if t.is_floating_point() else t for name, t in load_file(file).items()}
    save_file(state, file, metadata={"format": "pt"})
    assert load(folder).dtype == load(folder, dtype="auto").dtype == torch.float32
    assert load(folder, dtype=torch.float16).dtype == torch.float16


def change_weights(folder: Path, kind: str) -> None:
    file = folder / "model.safetensors"
    state = load_file(file)
    if kind == "missing":
        del state["class_head.bias"]
    elif kind == "unexpected":
        state["class_head.scale"] = torch.ones(2)
    else:
        state["class_head.bias"] = torch.zeros(3)
    save_file(state, file, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", ["missing", "unexpected", "of the wrong shape"])
def test_tensors_that_do_not_fit_are_errors(folder: Path, kind: str) -> None:
    change_weights(folder, kind)
    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = logged.append  # type: ignore[method-assign]
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addHandler(handler)
    try:
        with pytest.raises(CheckpointError, match=f"1 {kind}: class_head"):
            load(folder)
    finally:
        logger.removeHandler(handler)
    # The error alone says it.
    assert logged == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder_dims": 16}, "no setting encoder_dims; did you mean encoder_dim"),
        ({"image_size": 33}, "image_size 33 is not a multiple of patch_size 8"),
        ({"num_queries": "3"}, "num_queries"),
    ],
)
def test_a_configuration_with_an_unknown_key_or_value_is_an_error(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(CheckpointError, match=words):
        load(folder)


@pytest.mark.parametrize(
    "load_folder",
    [
        IGVGModel.from_pretrained,
        load_pretrained,
        IGVGPretrainedConfig.from_pretrained,
        IGVGForZeroShotObjectDetection.from_pretrained,
        transformers.AutoConfig.from_pretrained,
        transformers.AutoModel.from_pretrained,
        transformers.AutoModelForZeroShotObjectDetection.from_pretrained,
    ],
)
def test_a_configuration_that_lacks_settings_is_an_error_everywhere(
    folder: Path, load_folder: Callable[[Path], object]
) -> None:
    file = folder / "config.json"
    values = json.loads(file.read_text())
    del values["text_score"], values["encoder_dim"]
    file.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"config.json.*: 2 settings are missing: encoder_dim, text_score; copy"):
        load_folder(folder)


def test_what_transformers_saves_holds_every_setting(folder: Path, tmp_path: Path) -> None:
    load(folder).save_pretrained(tmp_path / "model")
    IGVGPretrainedConfig().save_pretrained(tmp_path / "config")
    for name in ("model", "config"):
        saved = json.loads((tmp_path / name / "config.json").read_text())
        assert {field.name for field in fields(IGVGConfig)} <= saved.keys()


def test_the_configuration_goes_through_transformers_unchanged(tmp_path: Path) -> None:
    config = replace(CONFIG, reference="point", distance_weight=0.5)
    IGVGPretrainedConfig(**vars(config)).save_pretrained(tmp_path)
    again = IGVGPretrainedConfig.from_pretrained(tmp_path)
    assert again.to_network() == config
    assert again.grid_size == config.grid_size


def test_outputs_of_transformers_have_every_field_of_the_network_s() -> None:
    names = {field.name for field in fields(IGVGOutput)}
    assert {field.name for field in fields(IGVGObjectDetectionOutput)} == names | {"input_ids"}
