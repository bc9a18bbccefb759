"""What a training starts from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from drawn_shards import write_shards
from small_network import CONFIG

from pipelines.checkpoint import save_checkpoint
from pipelines.initialization import build_model
from pipelines.model import IGVGModel
from pipelines.settings import SettingsError, TrainSettings, train_preset
from pipelines.text import learn_tokenizer, save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.loader import Part


@pytest.fixture
def parts(tmp_path: Path) -> list[Part]:
    """Three small pictures with twelve expressions."""
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
    save_checkpoint(tmp_path / "run", model, learn_tokenizer(["phrase"] * 3, 40), 9)
    started, _ = build_model(make_settings(init=str(tmp_path / "run")), parts)
    assert all(torch.equal(tensor, started.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_checkpoint_of_another_network_is_an_error_that_says_what_differs(parts: list[Part], tmp_path: Path) -> None:
    other = replace(CONFIG, num_queries=5)
    save_checkpoint(tmp_path / "run", IGVGModel(other), learn_tokenizer(["phrase"] * 3, 40), 9)
    with pytest.raises(SettingsError, match=r"model\.num_queries 3 → 5"):
        build_model(make_settings(init=str(tmp_path / "run")), parts)


def test_a_tokenizer_with_more_ids_than_the_network_is_an_error(parts: list[Part], tmp_path: Path) -> None:
    texts = [" ".join(chr(letter) * 2 for letter in range(97, 123))] * 3
    save_tokenizer(learn_tokenizer(texts, 200), tmp_path / "words")
    text = replace(train_preset("tiny").text, tokenizer=str(tmp_path / "words"))
    with pytest.raises(SettingsError, match=r"set model\.vocab_size to at least"):
        build_model(make_settings(text=text), parts)


def test_a_published_encoder_needs_its_tokenizer(parts: list[Part], tmp_path: Path) -> None:
    (tmp_path / "beit3.zip").write_bytes(b"weights")
    with pytest.raises(SettingsError, match=r"put beit3\.spm beside it or set text\.tokenizer"):
        build_model(make_settings(init=str(tmp_path / "beit3.zip")), parts)
