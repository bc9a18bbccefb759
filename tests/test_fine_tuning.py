"""docs/fine-tuning.md: its blocks run on the shards of docs/own-data.md and do what the page says."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.config.overrides import describe_differences
from pipelines.config.presets import BASE
from pipelines.networks import SHIPPED
from tests.support.page_blocks import read_blocks, read_commands
from tests.support.paths import ROOT
from tests.support.pipeline_runs import run_here
from tests.support.published_network import CONFIG, make_published, write_published_tokenizer

PAGE, OWN_DATA = ROOT / "docs" / "fine-tuning.md", ROOT / "docs" / "own-data.md"
# The published file of this test is smaller than the real one: the settings of its size, beside those of the page.
SIZES = [
    f"model.{key}={value}"
    for key, value in asdict(CONFIG).items()
    if value != getattr(BASE, key) and key != "text_score"
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all blocks ran, in their order."""
    folder = tmp_path_factory.mktemp("fine-tuning")
    torch.save({"state_dict": make_published(), "epoch": 9}, folder / "InstanceVG-grefcoco.pth")
    write_published_tokenizer(folder, ["all red circles", "all blue circles", "all green circles"] * 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        draw, prepare = read_blocks(OWN_DATA)[:2]
        exec(compile(draw[1], OWN_DATA.name, "exec"), {})
        for block in (prepare[1], *(text for language, text in read_blocks(PAGE) if not language)):
            for words in read_commands(block):
                run_here(*words, *(word for setting in shorten(words) for word in ("--set", setting)))
    return folder


def shorten(words: list[str]) -> list[str]:
    """Settings that make a training of the page as small as what is tested about it."""
    if words[0] != "train" or words[words.index("--out") + 1] in ("runs/from-shapes", "runs/again"):
        return []
    return [*(["text.max_tokens=18", *SIZES] if "published" in words else []), "max_steps=2", "validation_limit=2"]


def load(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_page_starts_from_all_kinds_of_networks(home: Path) -> None:
    inits = [
        words[words.index("--init") + 1]
        for language, block in read_blocks(PAGE)
        if not language
        for words in read_commands(block)
        if "--init" in words
    ]
    assert {"shapes", "runs/from-shapes", "published"} <= set(inits)
    for name in ("from-shapes", "again", "five-queries", "from-published", "frozen"):
        assert (home / "runs" / name / "model.safetensors").is_file()


def test_fine_tuning_makes_the_shipped_network_better_on_the_new_images(home: Path) -> None:
    scores = [
        json.loads(line)["scores"]["own"]["gIoU"]
        for name in ("from-shapes", "again")
        for line in (home / "runs" / name / "log.jsonl").read_text().splitlines()
        if "scores" in line
    ]
    assert scores[3] > scores[0] + 5
    # The run that goes on from it starts where it ended.
    assert scores[4] > scores[3] - 10


def test_frozen_layers_and_embeddings_stay_those_of_the_start(home: Path) -> None:
    start = {name: tensor.float() for name, tensor in load(SHIPPED["shapes"]).items()}
    found = load(home / "runs" / "frozen")
    frozen = ("encoder.patch_embed.", "encoder.text_embed.", "encoder.cls_token", "encoder.image_pos_embed",
              "encoder.text_pos_embed", "encoder.layers.0.", "encoder.layers.1.")  # fmt: skip
    same = {name for name in start if torch.equal(found[name], start[name])}
    assert {name for name in start if name.startswith(frozen)} <= same
    assert not {name for name in same if name.startswith(("encoder.layers.2.", "encoder.layers.3.", "decoder."))}


def test_settings_of_the_page_are_all_that_a_published_network_of_the_base_size_needs(home: Path) -> None:
    imported = json.loads((home / "published" / "config.json").read_text())
    own = {key: value for key, value in imported.items() if key in asdict(CONFIG)}
    named = {line.split()[0] for line in describe_differences(asdict(BASE), {**asdict(BASE), **own}, "model.")}
    assert named == {"model.text_score", *(setting.partition("=")[0] for setting in SIZES)}
