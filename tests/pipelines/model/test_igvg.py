"""The whole network at a size that runs in milliseconds."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.model import IGVGConfig, IGVGModel, IGVGOutput
from pipelines.model.decoder import DecoderLayer
from shards.errors import CheckpointError

CONFIG = IGVGConfig(
    image_size=32, patch_size=4, encoder_dim=24, encoder_layers=2, encoder_heads=2, encoder_ffn=32, drop_path=0.1,
    vocab_size=50, text_positions=16, hidden_dim=16, num_queries=4, decoder_layers=2, decoder_heads=2, decoder_ffn=32,
    generation_ffn=32, sampling_points=2,
)  # fmt: skip
LENGTHS = (3, 9, 1, 4)


@pytest.fixture
def model() -> IGVGModel:
    torch.manual_seed(0)
    return IGVGModel(CONFIG).eval()


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(4, 3, 32, 32, generator=generator)
    ids = torch.randint(0, 50, (4, 9), generator=generator)
    return pixels, ids, (torch.arange(9) < torch.tensor(LENGTHS)[:, None]).long()


def flatten(output: IGVGOutput) -> dict[str, Tensor]:
    fields = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return {name: torch.stack(value, dim=1) if isinstance(value, list) else value for name, value in fields.items()}


def assert_same(first: IGVGOutput, second: IGVGOutput, rows: slice = slice(None), tolerance: float = 1e-5) -> None:
    for (name, one), other in zip(flatten(first).items(), flatten(second).values(), strict=True):
        torch.testing.assert_close(
            one[rows], other, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


def add_up(output: IGVGOutput) -> Tensor:
    return sum(value.square().mean() for name, value in flatten(output).items() if name != "points")


@torch.inference_mode()
def test_outputs_have_the_promised_shapes_and_ranges(model, inputs):
    output = model(*inputs)
    assert {name: tuple(value.shape) for name, value in flatten(output).items()} == {
        "class_logits": (4, 4, 2),
        "boxes": (4, 4, 4),
        "points": (4, 4, 2),
        "instance_mask_logits": (4, 4, 32, 32),
        "global_mask_logits": (4, 1, 32, 32),
        "existence_logits": (4, 2),
        "attention_map": (4, 8, 8),
        "aux_class_logits": (4, 1, 4, 2),
        "aux_boxes": (4, 1, 4, 4),
    }
    assert CONFIG.mask_size == 32
    for bounded in (output.boxes, output.points, output.attention_map):
        assert bounded.min() >= 0
        assert bounded.max() <= 1
    # Points are the centers of different patches.
    patches = output.points * 8 - 0.5
    assert torch.equal(patches, patches.round())
    assert all(len(points.unique(dim=0)) == 4 for points in output.points)


@torch.inference_mode()
def test_the_same_inputs_give_the_same_outputs(model, inputs):
    assert_same(model(*inputs), model(*inputs), tolerance=0)


@torch.inference_mode()
def test_a_batch_gives_what_its_samples_give_alone(model, inputs):
    together = model(*inputs)
    for number in range(4):
        alone = model(*(value[number : number + 1] for value in inputs))
        assert_same(together, alone, slice(number, number + 1))


@torch.inference_mode()
def test_padding_changes_nothing(model, inputs):
    pixels, ids, mask = inputs
    padded = model(pixels, ids, mask)
    assert_same(padded, model(pixels, torch.where(mask == 1, ids, 7), mask), tolerance=1e-6)
    for number, length in enumerate(LENGTHS):
        rows = slice(number, number + 1)
        assert_same(padded, model(pixels[rows], ids[rows, :length], mask[rows, :length]), rows)


@pytest.mark.parametrize("reference", ["shifted", "point"])
def test_training_reaches_every_parameter(inputs, reference):
    torch.manual_seed(0)
    model = IGVGModel(dataclasses.replace(CONFIG, reference=reference, drop_path=0.0)).train()
    add_up(model(*inputs)).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    # A bias of the keys shifts all logits of a query alike, which softmax does not see.
    silent = {name for name, parameter in model.named_parameters() if not parameter.grad.any()}
    assert silent <= {"query_generation.cross_attn.k_proj.bias"}


def test_training_draws_dropout_and_stochastic_depth_from_the_seed(inputs):
    model = IGVGModel(dataclasses.replace(CONFIG, drop_path=0.5)).train()
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(model(*inputs))
    assert_same(outputs[0], outputs[1], tolerance=0)
    assert not torch.equal(outputs[0].boxes, outputs[2].boxes)


def test_the_point_itself_can_be_the_reference(inputs):
    model = IGVGModel(dataclasses.replace(CONFIG, reference="point")).eval()
    for name in ("weight", "bias"):
        getattr(model.box_head.fc3, name).data.zero_()
    output = model(*inputs)
    torch.testing.assert_close(output.boxes[..., :2], output.points)


def test_bfloat16_autocast_keeps_boxes_and_points_in_float32(model, inputs):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model.train()(*inputs)
    assert output.boxes.dtype == output.points.dtype == output.attention_map.dtype == torch.float32
    add_up(output).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_an_image_of_another_size_is_an_error(model, inputs):
    with pytest.raises(ValueError, match=r"expected pixel_values \(B, 3, 32, 32\), got \(4, 3, 16, 16\)"):
        model(torch.zeros(4, 3, 16, 16), *inputs[1:])


def test_a_text_longer_than_the_positions_is_an_error(model, inputs):
    with pytest.raises(ValueError, match=r"expected input_ids \(B, L\) with L ≤ 14, got L = 15"):
        model(inputs[0], torch.zeros(4, 15, dtype=torch.long), torch.ones(4, 15, dtype=torch.long))


def test_saving_and_loading_keeps_every_bit(model, inputs, tmp_path: Path):
    model.pixel_decoder.blocks[0].bn1.num_batches_tracked += 3
    model.save_pretrained(tmp_path / "checkpoint")
    again = IGVGModel.from_pretrained(tmp_path / "checkpoint")
    assert again.config == CONFIG
    assert not again.training
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert_same(model(*inputs), again(*inputs), tolerance=0)
    assert sorted(file.name for file in (tmp_path / "checkpoint").iterdir()) == ["config.json", "model.safetensors"]
    add_up(again.train()(*inputs)).backward()
    assert all(parameter.grad is not None for parameter in again.parameters())


def test_a_checkpoint_in_halves_loads_as_float32(model, tmp_path: Path):
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({name: t.half() if t.is_floating_point() else t for name, t in load_file(file).items()}, file)
    assert {p.dtype for p in IGVGModel.from_pretrained(str(tmp_path)).parameters()} == {torch.float32}


def test_a_folder_without_a_checkpoint_is_an_error(model, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"is no checkpoint folder: it has no config\.json; give one that igvg"):
        IGVGModel.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"it has no model\.safetensors"):
        IGVGModel.from_pretrained(tmp_path)


def test_a_cut_off_weights_file_is_an_error(model, tmp_path: Path):
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is damaged"):
        IGVGModel.from_pretrained(tmp_path)


def test_tensors_that_do_not_fit_are_listed(model, tmp_path: Path):
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    del state["class_head.bias"]
    save_file(state | {"extra": torch.ones(1), "class_head.weight": torch.ones(3, 16)}, file)
    with pytest.raises(CheckpointError) as caught:
        IGVGModel.from_pretrained(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: the tensors do not fit the network; 1 missing: class_head.bias; 1 unexpected: extra; "
        "1 of the wrong shape: class_head.weight is [3, 16], not [2, 16]"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "config.json: is damaged"),
        ("[]", "does not describe an igvg model"),
        ('{"model_type": "bert"}', "does not describe an igvg model"),
        ('{"model_type": "igvg", "num_querys": 3}', "no setting num_querys; did you mean num_queries?"),
        ('{"model_type": "igvg", "zzz": 3}', "no setting zzz; there are image_size, "),
        ('{"model_type": "igvg", "num_queries": 3}', "19 settings are missing: image_size, patch_size, "),
    ],
)
def test_a_wrong_configuration_is_an_error(model, tmp_path: Path, content: str, words: str):
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError) as caught:
        IGVGModel.from_pretrained(tmp_path)
    assert words in str(caught.value)


@pytest.mark.parametrize("value", ["3", True])
def test_a_setting_of_another_type_is_an_error(model, tmp_path: Path, value: object):
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text()) | {"num_queries": value}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=f"num_queries = {value!r}: Input should be a valid integer"):
        IGVGModel.from_pretrained(tmp_path)


def test_the_configuration_is_written_as_hugging_face_does(model, tmp_path: Path):
    model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["model_type"], written["architectures"]) == ("igvg", ["IGVGModel"])


def test_a_fresh_network_expects_objects_of_about_an_eighth_of_the_image(model, inputs):
    output = model(*inputs)
    assert output.boxes[..., 2:].mean().item() == pytest.approx(0.12, abs=0.04)


def test_deformable_attention_of_a_decoder_layer_goes_through_dropout_in_training():
    torch.manual_seed(0)
    layer = DecoderLayer(dataclasses.replace(CONFIG, dropout=0.5), (16, 8, 4, 2)).train()
    layer.self_attn.dropout, layer.ffn.dropout.p = 0.0, 0.0
    queries = torch.randn(2, 3, CONFIG.hidden_dim)
    maps = [torch.randn(2, CONFIG.hidden_dim, side, side) for side in (16, 8, 4, 2)]
    first, second = (layer(queries, queries, torch.full((2, 3, 2), 0.5), maps) for _ in range(2))
    assert not torch.equal(first, second)
    layer.eval()
    first, second = (layer(queries, queries, torch.full((2, 3, 2), 0.5), maps) for _ in range(2))
    assert torch.equal(first, second)
