"""What a training starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.config.presets import train_preset
from pipelines.config.settings import TrainSettings
from pipelines.data.datasets import Part
from pipelines.data.tokenizer import save_tokenizer, train_tokenizer
from pipelines.model import IGVGModel
from pipelines.networks import SHIPPED
from pipelines.pretrained import save_checkpoint
from pipelines.training.initialization import build_model
from shards.errors import CheckpointError, SettingsError
from tests.support.drawn_shards import write_shards
from tests.support.published_network import CONFIG as PUBLISHED
from tests.support.published_network import make_published
from tests.support.small_network import CONFIG


@pytest.fixture
def parts(tmp_path: Path) -> list[Part]:
    """Three small images with twelve expressions."""
    return [(write_shards(tmp_path / "set"), "val")]


def make_settings(**changes: object) -> TrainSettings:
    return replace(train_preset("tiny"), model=CONFIG, **changes)


def test_one_seed_gives_one_network(parts: list[Part]) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(build_model(make_settings(), parts)[0].state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_without_a_tokenizer_one_is_learnt_that_the_network_has_room_for(parts: list[Part]) -> None:
    _, tokenizer = build_model(make_settings(), parts)
    assert 4 < len(tokenizer) <= CONFIG.vocab_size


def test_a_checkpoint_folder_is_continued_from(parts: list[Part], tmp_path: Path) -> None:
    model = IGVGModel(CONFIG)
    save_checkpoint(tmp_path / "run", model, train_tokenizer(["phrase"] * 3, 40), 9)
    started, _ = build_model(make_settings(init=str(tmp_path / "run")), parts)
    assert all(torch.equal(tensor, started.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_checkpoint_of_another_network_is_an_error_that_says_what_differs(parts: list[Part], tmp_path: Path) -> None:
    other = replace(CONFIG, num_queries=5)
    save_checkpoint(tmp_path / "run", IGVGModel(other), train_tokenizer(["phrase"] * 3, 40), 9)
    with pytest.raises(SettingsError, match=r"model\.num_queries 3 → 5"):
        build_model(make_settings(init=str(tmp_path / "run")), parts)


def test_a_tokenizer_with_more_ids_than_the_network_is_an_error(parts: list[Part], tmp_path: Path) -> None:
    texts = [" ".join(chr(letter) * 2 for letter in range(97, 123))] * 3
    save_tokenizer(train_tokenizer(texts, 200), tmp_path / "words")
    text = replace(train_preset("tiny").text, tokenizer=str(tmp_path / "words"))
    with pytest.raises(SettingsError, match=r"set model\.vocab_size to at least"):
        build_model(make_settings(text=text), parts)


def test_a_published_encoder_needs_its_tokenizer(parts: list[Part], tmp_path: Path) -> None:
    (tmp_path / "beit3.zip").write_bytes(b"weights")
    with pytest.raises(SettingsError, match=r"put beit3\.spm beside it or set text\.tokenizer"):
        build_model(make_settings(init=str(tmp_path / "beit3.zip")), parts)


def test_a_published_encoder_is_the_one_that_training_starts_with(parts: list[Part], tmp_path: Path) -> None:
    beit3 = {
        key.removeprefix("vis_enc."): value for key, value in make_published().items() if key.startswith("vis_enc.")
    }
    torch.save({"model": beit3}, tmp_path / "beit3.pth")
    save_tokenizer(train_tokenizer(["phrase"] * 3, 40), tmp_path / "words")
    text = replace(train_preset("tiny").text, tokenizer=str(tmp_path / "words"))
    settings = replace(make_settings(init=str(tmp_path / "beit3.pth"), text=text), model=PUBLISHED)
    torch.manual_seed(1)
    model, tokenizer = build_model(settings, parts)
    state = model.state_dict()
    attention, expert = "beit3.encoder.layers.1.self_attn.", "beit3.encoder.layers.1.ffn."
    for ours, theirs in {
        "text_embed.weight": "beit3.text_embed.weight",
        "patch_embed.weight": "beit3.vision_embed.proj.weight",
        "cls_token": "beit3.vision_embed.cls_token",
        "image_norm.weight": "beit3.encoder.layer_norm.A.weight",
        "text_norm.bias": "beit3.encoder.layer_norm.B.bias",
        "text_pos_embed": "beit3.encoder.embed_positions.B.weight",
        "layers.1.image_expert.fc1.weight": expert + "A.fc1.weight",
        "layers.1.text_expert.fc2.weight": expert + "B.fc2.weight",
        "layers.1.image_expert.out_proj.weight": attention + "out_proj.A.weight",
    }.items():
        assert torch.equal(state[f"encoder.{ours}"], beit3[theirs]), ours
    queries = torch.cat([beit3[f"{attention}{part}_proj.B.weight"] for part in "qkv"])
    assert torch.equal(state["encoder.layers.1.text_expert.qkv.weight"], queries)
    assert len(tokenizer) == len(train_tokenizer(["phrase"] * 3, 40))
    # All else is as fresh as without it.
    torch.manual_seed(1)
    fresh = IGVGModel(PUBLISHED).state_dict()
    for name in fresh:
        assert torch.equal(state[name], fresh[name]) != name.startswith("encoder."), name


def test_the_shipped_network_is_started_from_by_its_name(parts: list[Part]) -> None:
    settings = replace(train_preset("tiny"), init="shapes")
    started, tokenizer = build_model(settings, parts)
    shipped = load_file(SHIPPED["shapes"] / "model.safetensors")
    assert all(torch.equal(tensor, shipped[name].to(tensor.dtype)) for name, tensor in started.state_dict().items())
    assert len(tokenizer) <= settings.model.vocab_size


def test_a_shipped_network_of_another_preset_is_an_error_that_says_which_preset(parts: list[Part]) -> None:
    with pytest.raises(SettingsError, match="shapes is a network of the preset tiny; add --preset tiny"):
        build_model(replace(train_preset("base"), init="shapes"), parts)


def test_a_changed_setting_of_the_right_preset_is_named(parts: list[Part]) -> None:
    with pytest.raises(SettingsError, match=r"model\.num_queries 3 → 10"):
        build_model(make_settings(init="shapes"), parts)


def test_the_encoder_alone_is_taken_from_a_checkpoint_and_the_rest_is_as_fresh_as_without(
    parts: list[Part], tmp_path: Path
) -> None:
    other = IGVGModel(replace(CONFIG, num_queries=5, reference="point"))
    save_checkpoint(tmp_path / "run", other, train_tokenizer(["phrase"] * 3, 40), 9)
    torch.manual_seed(1)
    model, tokenizer = build_model(make_settings(init=str(tmp_path / "run"), init_part="encoder"), parts)
    torch.manual_seed(1)
    fresh, found = IGVGModel(CONFIG).state_dict(), model.state_dict()
    assert model.config == CONFIG
    assert len(tokenizer) == len(train_tokenizer(["phrase"] * 3, 40))
    for name in fresh:
        expected = other.state_dict()[name] if name.startswith("encoder.") else fresh[name]
        assert torch.equal(found[name], expected), name


def test_an_encoder_of_another_size_is_refused(parts: list[Part], tmp_path: Path) -> None:
    other = IGVGModel(replace(CONFIG, encoder_ffn=24))
    save_checkpoint(tmp_path / "run", other, train_tokenizer(["phrase"] * 3, 40), 9)
    with pytest.raises(CheckpointError, match=r"the encoder of .*run in the network .*fc1\.weight is \[24, 16\]"):
        build_model(make_settings(init=str(tmp_path / "run"), init_part="encoder"), parts)
