"""The recorded command that makes the shipped network, at a small size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from pipelines.config.presets import train_preset
from pipelines.experiments import demo, pretraining
from pipelines.pretrained import load_checkpoint
from shards.files import digest_file
from shards.synthetic.writer import write_published, write_refcoco


def test_it_draws_prepares_trains_and_stores_halves_of_the_trained_weights(tmp_path: Path) -> None:
    settings = replace(train_preset("tiny"), max_steps=1, batch_size=2, workers=0, validation_limit=2)
    folder = pretraining.run(tmp_path, train_images=4, settings=settings)
    stored, trained = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "run"))
    assert stored.keys() == trained.keys()
    for name, tensor in trained.items():
        assert torch.equal(stored[name], tensor.half() if tensor.is_floating_point() else tensor), name
    model, tokenizer, max_tokens = load_checkpoint(folder)
    assert model.config == settings.model
    assert len(tokenizer) <= settings.model.vocab_size
    assert max_tokens == settings.text.max_tokens
    assert json.loads((folder / "origin.json").read_text())["steps"] == 1


def test_its_images_are_none_of_the_demo_s_and_no_image_of_either_is_drawn_twice(tmp_path: Path) -> None:
    sizes = {"train_images": 8, "held_out_images": 2}
    write_refcoco(tmp_path / "pretraining", seed=pretraining.SEED, **sizes)
    write_published(tmp_path / "demo", seed=demo.SEED, **sizes)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert len(files) == (8 + 2) + (8 + 3 * 2)
    assert len({file.name for file in files}) == len({digest_file(file) for file in files}) == len(files)
