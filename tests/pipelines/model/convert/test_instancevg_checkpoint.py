"""Published checkpoints of a small made-up size: what is read, what is refused and why."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.model import IGVGModel
from pipelines.model.convert.instancevg import (
    convert_state,
    infer_config,
    load_instancevg_checkpoint,
)
from pipelines.model.convert.torch_file import read_tensors
from shards.errors import CheckpointError
from tests.support.published_network import CONFIG, T2I, make_published


@pytest.fixture
def published() -> dict[str, Tensor]:
    return make_published()


def test_sizes_and_published_behavior_are_read_off_the_tensors(published):
    assert infer_config(published) == CONFIG


def test_each_tensor_gets_its_name(published):
    _, state = convert_state(published)
    layer = "vis_enc.beit3.encoder.layers.1."
    pairs = {
        "encoder.layers.1.text_expert.fc1.weight": layer + "ffn.B.fc1.weight",
        "encoder.layers.1.image_expert.ffn_norm.bias": layer + "final_layer_norm.A.bias",
        "decoder.layers.1.cross_attn_norm.bias": "head.decoder_transformer.decoder.layers.1.norms.1.bias",
        "pixel_decoder.blocks.2.conv2.weight": "head.unet_decoder.conv2_2.weight",
        "box_head.fc3.weight": "head.bbox_embed.0.layers.2.weight",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(state[ours], published[theirs])
    key = published[layer + "self_attn.k_proj.A.weight"]
    assert torch.equal(state["encoder.layers.1.image_expert.qkv.weight"][64:128], key)
    values = published["head.decoder_transformer.decoder.layers.0.attentions.0.attn.in_proj_bias"][32:]
    assert torch.equal(state["decoder.layers.0.self_attn.v_proj.bias"], values)
    assert state["pixel_decoder.blocks.0.bn1.num_batches_tracked"] == 5


def test_a_converted_model_can_be_saved_and_loaded(published, tmp_path: Path):
    torch.save({"state_dict": published, "epoch": 3}, tmp_path / "published.pth")
    model = load_instancevg_checkpoint(tmp_path / "published.pth")
    model.save_pretrained(tmp_path / "ours")
    again = IGVGModel.from_pretrained(tmp_path / "ours")
    assert again.config == CONFIG
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_self_attention_over_zeros_becomes_the_vector_it_always_returns(published):
    attention = torch.nn.MultiheadAttention(16, 8, batch_first=True)
    parts = {
        key.split("attentions.0.attn.")[1]: value for key, value in published.items() if T2I + "attentions.0" in key
    }
    attention.load_state_dict(parts)
    norm = torch.nn.LayerNorm(16)
    norm.load_state_dict({leaf: published[f"{T2I}norms.0.{leaf}"] for leaf in ("weight", "bias")})
    words = torch.randn(2, 3, 16)
    expected = norm(attention(words, words, torch.zeros(2, 3, 16))[0])
    content = convert_state(published)[1]["query_generation.content_query"]
    torch.testing.assert_close(content.expand(2, 3, 16), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("wrap", ["", "state_dict", "model", "module"])
def test_wrappers_and_the_prefix_of_parallel_training_are_taken_off(published, tmp_path: Path, wrap: str):
    state = {f"module.{key}": value for key, value in published.items()}
    torch.save({wrap: state, "epoch": 9} if wrap else state, tmp_path / "file.pth")
    assert read_tensors(tmp_path / "file.pth").keys() == published.keys()


def test_numbers_of_numpy_in_the_training_record_do_no_harm(tmp_path: Path):
    record = {"state_dict": {"a": torch.ones(2)}, "miou": np.float64(0.5), "lr": 1e-4, "args": {"epochs": [1, 2]}}
    torch.save(record, tmp_path / "file.pth")
    assert read_tensors(tmp_path / "file.pth")["a"].tolist() == [1, 1]


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    for file, content in (("a.pth", {"state_dict": {}, "x": Trap()}), ("b.pth", {"state_dict": {}, "x": Path("y")})):
        torch.save(content, tmp_path / file)
        with pytest.raises(CheckpointError, match=r"not tensors alone \(it asks for [\w.]+\); igvg runs no code"):
            load_instancevg_checkpoint(tmp_path / file)
    (tmp_path / "c.pth").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CheckpointError, match=r"c\.pth: is a pickle, not a checkpoint"):
        load_instancevg_checkpoint(tmp_path / "c.pth")
    assert not (tmp_path / "ran").exists()


def test_files_that_hold_no_tensors_are_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file"):
        load_instancevg_checkpoint(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text\.pth: is text that begins \"hello\", not a checkpoint"):
        load_instancevg_checkpoint(tmp_path / "text.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"empty\.pth: is an empty file, not a checkpoint"):
        load_instancevg_checkpoint(tmp_path / "empty.pth")
    for name, content in (("list.pth", [1, 2]), ("plain.pth", {"state_dict": {"epoch": 3}})):
        torch.save(content, tmp_path / name)
        with pytest.raises(CheckpointError, match=f"{name} holds no tensors"):
            load_instancevg_checkpoint(tmp_path / name)


def test_tensors_missing_from_a_published_state_are_listed(published):
    for key in ("head.nt_embed.layers.1.bias", "vis_enc.beit3.encoder.layers.0.self_attn.q_proj.A.bias"):
        del published[key]
    with pytest.raises(
        CheckpointError, match=r"2 missing: head\.nt_embed\.layers\.1\.bias, vis_enc\..*q_proj\.A\.bias$"
    ):
        convert_state(published, "some.pth")


def test_another_networks_state_is_no_instancevg_checkpoint():
    with pytest.raises(
        CheckpointError, match=r"some\.pth is no InstanceVG checkpoint: it has no vis_enc\.beit3\.text_embed"
    ):
        convert_state({"conv.weight": torch.ones(1)}, "some.pth")
    with pytest.raises(CheckpointError, match=r"it has no vis_enc\.beit3\.text_embed\.weight"):
        convert_state({"vis_enc.beit3.text_embed.weight": torch.ones(3)})


def test_a_state_of_impossible_sizes_is_no_instancevg_checkpoint(published):
    published["vis_enc.beit3.encoder.embed_positions.A.weight"] = torch.ones(2, 64)
    with pytest.raises(CheckpointError, match="is no InstanceVG checkpoint: image_size = 0"):
        convert_state(published)


def test_tensors_too_many_in_a_published_state_are_listed(published):
    with pytest.raises(CheckpointError, match=r"1 unexpected: head\.new\.weight"):
        convert_state(published | {"head.new.weight": torch.ones(1)})


def test_heads_that_are_not_shared_by_the_decoder_layers_are_refused(published):
    published["head.class_embed.1.bias"] = published["head.class_embed.0.bias"] + 1
    with pytest.raises(CheckpointError, match=r"1 unexpected: head\.class_embed\.1\.bias"):
        convert_state(published)


def test_tensors_of_the_wrong_shape_are_listed_with_what_they_are_for(published):
    published["head.lan_embedding.weight"] = torch.ones(16, 65)
    published["vis_enc.beit3.encoder.layers.0.self_attn.v_proj.B.weight"] = torch.ones(64, 63)
    with pytest.raises(CheckpointError) as caught:
        convert_state(published)
    assert "2 of the wrong shape: head.lan_embedding.weight [16, 65] for text_projection.weight [16, 64]" in str(
        caught.value
    )
    assert "v_proj.B.weight [64, 63] for encoder.layers.0.text_expert.qkv.weight [192, 64]" in str(caught.value)


@pytest.mark.parametrize(
    "key", ["head.img_embedding.weight", "head.neck.fpn1.0.weight", "vis_enc.beit3.encoder.layers.0.ffn.B.fc1.weight"]
)
def test_a_tensor_of_the_right_number_of_elements_and_the_wrong_shape_is_refused(published, key: str):
    turned = published[key].transpose(0, 1).contiguous()
    assert turned.shape != published[key].shape
    with pytest.raises(CheckpointError, match=rf"1 of the wrong shape: {key} \[{turned.shape[0]}, {turned.shape[1]}"):
        convert_state(published | {key: turned})


def test_axes_of_length_one_are_no_other_shape(published):
    key = "head.seg_branch.predict.weight"
    assert published[key].shape == (1, 16, 1, 1)
    _, state = convert_state(published | {key: published[key].flatten()})
    assert torch.equal(state["global_mask_head.weight"], published[key])
