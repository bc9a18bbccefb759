"""The BEiT-3 encoder of made-up published checkpoints: alone, and inside those of other networks."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.model import IGVGModel
from pipelines.model.convert.beit3 import load_beit3_encoder, resize_positions, sum_patch_filters
from shards.errors import CheckpointError
from shards.progress import set_sink
from tests.support.published_network import CONFIG, make_published

PREFIXES = {"BEiT-3": "", "SimVG, PropVG": "vis_enc.", "DeRIS": "understanding_branch.vis_enc."}


def load(model: IGVGModel, file: Path) -> list[str]:
    """Load an encoder; returns the lines of the log."""
    lines: list[str] = []
    with set_sink(log=lines.append):
        load_beit3_encoder(model, file)
    return lines


def make_beit3(side: int = 4) -> dict[str, Tensor]:
    prefix = "vis_enc."
    state = {key[len(prefix) :]: value for key, value in make_published().items() if key.startswith(prefix)}
    state["beit3.encoder.embed_positions.A.weight"] = torch.randn(3 + side**2, 64)
    return state


@pytest.mark.parametrize("wrap", ["model", "module"])
def test_beit3_goes_into_the_encoder_and_nowhere_else(tmp_path: Path, wrap: str):
    model = IGVGModel(CONFIG)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    beit3 = make_beit3(side=6)
    torch.save({wrap: beit3 | {"language_head.weight": torch.ones(2)}}, tmp_path / "beit3.zip")
    assert load_beit3_encoder(model, tmp_path / "beit3.zip") == ["language_head.weight"]
    for name, tensor in model.state_dict().items():
        expected = name.startswith("encoder.") and not torch.equal(tensor, before[name])
        assert expected == name.startswith("encoder.")
    assert torch.equal(model.encoder.image_pos_embed[0], beit3["beit3.encoder.embed_positions.A.weight"][2])
    assert torch.equal(model.encoder.text_embed.weight, beit3["beit3.text_embed.weight"])


def test_beit3_of_another_size_is_refused(tmp_path: Path):
    beit3 = make_beit3()
    torch.save(beit3 | {"beit3.text_embed.weight": torch.ones(41, 64)}, tmp_path / "large.pth")
    with pytest.raises(
        CheckpointError, match=r"beit3\.text_embed\.weight \[41, 64\] for encoder\.text_embed\.weight \[40, 64\]"
    ):
        load_beit3_encoder(IGVGModel(CONFIG), tmp_path / "large.pth")
    beit3["beit3.encoder.embed_positions.A.weight"] = torch.ones(15, 64)
    torch.save(beit3, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"embed_positions\.A\.weight \[15, 64\]"):
        load_beit3_encoder(IGVGModel(CONFIG), tmp_path / "odd.pth")


def test_beit3_without_a_tensor_is_refused(tmp_path: Path):
    beit3 = make_beit3()
    del beit3["beit3.encoder.layer_norm.B.bias"]
    torch.save(beit3, tmp_path / "beit3.pth")
    with pytest.raises(CheckpointError, match=r"1 missing: beit3\.encoder\.layer_norm\.B\.bias"):
        load_beit3_encoder(IGVGModel(CONFIG), tmp_path / "beit3.pth")


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_the_encoder_of_other_networks_is_taken_and_the_rest_is_left(tmp_path: Path, prefix: str) -> None:
    beit3 = make_beit3(side=6)
    others = {"perception_branch.weight": torch.ones(3), "vis_enc.pooler.dense.weight": torch.ones(2)}
    torch.save({"model": beit3}, tmp_path / "beit3.pth")
    named = {f"module.{prefix}{key}": value for key, value in beit3.items()}
    torch.save({"state_dict": named | others, "optimizer": {}}, tmp_path / "network.pth")
    expected, model = IGVGModel(CONFIG), IGVGModel(CONFIG)
    model.load_state_dict(expected.state_dict())
    load(expected, tmp_path / "beit3.pth")
    lines = load(model, tmp_path / "network.pth")
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in model.state_dict().items())
    counts = f"{len(beit3)} of {len(beit3) + 2} tensors were taken, its BEiT-3 encoder ({prefix}beit3.*); "
    left = "left: 2 (1 of perception_branch, 1 of vis_enc)"
    assert lines == [f"{tmp_path / 'network.pth'}: {counts}{left}"]


def test_of_an_instancevg_checkpoint_the_encoder_is_taken_and_import_is_named(tmp_path: Path) -> None:
    published, model = make_published(), IGVGModel(CONFIG)
    torch.save({"state_dict": published}, tmp_path / "instancevg.pth")
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (line,) = load(model, tmp_path / "instancevg.pth")
    encoder = sum(key.startswith("vis_enc.") for key in published)
    assert f"{encoder} of {len(published)} tensors were taken" in line
    assert f"left: {len(published) - encoder} (" in line
    assert line.endswith("; igvg import takes the whole network")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, fresh[name]) != name.startswith("encoder."), name


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_a_missing_tensor_is_named_as_the_file_would_name_it(tmp_path: Path, prefix: str) -> None:
    state = {prefix + key: value for key, value in make_beit3().items()}
    del state[f"{prefix}beit3.encoder.layers.1.self_attn.k_proj.B.bias"]
    torch.save(state, tmp_path / "network.pth")
    with pytest.raises(CheckpointError) as caught:
        load_beit3_encoder(IGVGModel(CONFIG), tmp_path / "network.pth")
    assert str(caught.value).endswith(f"1 missing: {prefix}beit3.encoder.layers.1.self_attn.k_proj.B.bias")


def test_more_layers_than_the_network_has_are_refused(tmp_path: Path) -> None:
    state = make_beit3()
    extra = {key.replace("layers.1.", "layers.2."): value for key, value in state.items() if "layers.1." in key}
    torch.save(state | extra, tmp_path / "deep.pth")
    with pytest.raises(CheckpointError, match=r"40 unexpected: beit3\.encoder\.layers\.2\.ffn\.A\.fc1\.bias"):
        load_beit3_encoder(IGVGModel(CONFIG), tmp_path / "deep.pth")


def test_a_file_without_an_encoder_and_one_with_two_are_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match=r"holds no BEiT-3 encoder \(beit3\.text_embed\.weight\); give"):
        load_beit3_encoder(IGVGModel(CONFIG), tmp_path / "none.pth")
    two = {f"{branch}.beit3.text_embed.weight": torch.ones(2, 2) for branch in "ab"}
    torch.save(two, tmp_path / "two.pth")
    with pytest.raises(CheckpointError, match=r"holds 2 BEiT-3 encoders \(a\., b\.\)"):
        load_beit3_encoder(IGVGModel(CONFIG), tmp_path / "two.pth")


def test_filters_of_larger_patches_see_the_enlarged_image_as_before(tmp_path: Path) -> None:
    filters, image = torch.randn(5, 3, 16, 16), torch.randn(1, 3, 32, 32)
    enlarged = image.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = F.conv2d(enlarged, filters, stride=16)
    torch.testing.assert_close(F.conv2d(image, sum_patch_filters(filters, 8), stride=8), expected, rtol=0, atol=1e-4)
    beit3, model = make_beit3(), IGVGModel(CONFIG)
    beit3["beit3.vision_embed.proj.weight"] = torch.randn(64, 3, 16, 16)
    torch.save(beit3, tmp_path / "simvg.pth")
    (line,) = load(model, tmp_path / "simvg.pth")
    assert line.endswith("its filters of 16 × 16 pixels were summed to 8 × 8")
    summed = sum_patch_filters(beit3["beit3.vision_embed.proj.weight"], CONFIG.patch_size)
    assert torch.equal(model.encoder.patch_embed.weight, summed)


@pytest.mark.parametrize("side", [4, 12])
def test_filters_of_patches_that_do_not_fit_are_refused(tmp_path: Path, side: int) -> None:
    torch.save(make_beit3() | {"beit3.vision_embed.proj.weight": torch.randn(64, 3, side, side)}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=rf"beit3\.vision_embed\.proj\.weight \[64, 3, {side}, {side}\] for"):
        load_beit3_encoder(IGVGModel(CONFIG), tmp_path / "odd.pth")


def test_an_encoder_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": make_beit3(), "hook": Path("x")}, tmp_path / "trap.pth")
    with pytest.raises(CheckpointError, match="igvg runs no code from checkpoints"):
        load_beit3_encoder(IGVGModel(CONFIG), tmp_path / "trap.pth")


def test_positions_of_a_plane_stay_a_plane_when_resized():
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    table = torch.cat((torch.full((3, 1), 7.0), (2 * rows + columns).reshape(-1, 1)))
    resized = resize_positions(table, 4)
    assert resized[:3].flatten().tolist() == [7, 7, 7]
    inner = resized[3:].view(4, 4)[1:3, 1:3]
    # Cell i of four covers cells 2i and 2i + 1 of eight.
    expected = torch.tensor([[2 * (2 * i + 0.5) + 2 * j + 0.5 for j in (1, 2)] for i in (1, 2)])
    torch.testing.assert_close(inner, expected)
    assert torch.equal(resize_positions(table, math.isqrt(len(table) - 3)), table)


def test_positions_are_resized_by_cubic_convolution_with_the_published_coefficient() -> None:
    # Between cells i and i + 1, halfway: weights -3/32, 19/32, 19/32, -3/32 (Keys 1981, a = -0.75), the rim repeated.
    column = torch.tensor([1.0, 5.0, 2.0, 8.0])
    table = torch.cat((torch.zeros(3, 1), column[:, None].expand(4, 4).reshape(-1, 1)))
    first = (-3 * 1 + 19 * 1 + 19 * 5 - 3 * 2) / 32
    second = (-3 * 5 + 19 * 2 + 19 * 8 - 3 * 8) / 32
    resized = resize_positions(table, 2)[3:].view(2, 2)
    torch.testing.assert_close(resized, torch.tensor([[first, first], [second, second]]))
