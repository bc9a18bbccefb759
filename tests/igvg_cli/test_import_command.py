"""`igvg import`: a published file becomes a folder that predicts, or nothing at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.model import IGVGModel
from pipelines.model.convert.instancevg import load_instancevg_checkpoint
from tests.support.pipeline_runs import igvg, only_error, snapshot
from tests.support.published_network import CONFIG, make_published, write_published_tokenizer

TEXTS = ["the red car on the left", "two people", "every blue star", "a green circle near the square"] * 5


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up checkpoint with its tokenizer beside it."""
    folder = tmp_path_factory.mktemp("published")
    torch.save({"state_dict": make_published(), "epoch": 9}, folder / "published.pth")
    write_published_tokenizer(folder, TEXTS)
    return folder


@pytest.fixture(scope="module")
def imported(published: Path) -> Path:
    """What `igvg import` made of it."""
    result = igvg("import", published / "published.pth", "--out", published / "ours")
    assert result.returncode == 0, result.stderr
    return published / "ours"


def test_the_folder_computes_what_the_file_does_to_the_last_bit(published: Path, imported: Path) -> None:
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ids, attended = torch.tensor([[0, 7, 9, 2], [0, 5, 2, 1]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    with torch.no_grad():
        theirs = load_instancevg_checkpoint(published / "published.pth")(pixels, ids, attended)
        ours = IGVGModel.from_pretrained(imported)(pixels, ids, attended)
    for name in ("class_logits", "boxes", "points", "instance_mask_logits", "global_mask_logits", "existence_logits"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))


def test_the_published_behaviour_is_written_into_its_configuration(imported: Path) -> None:
    config = json.loads((imported / "config.json").read_text())
    assert (config["text_score"], config["reference"]) == ("mean", "shifted")
    assert (config["image_size"], config["num_queries"]) == (CONFIG.image_size, CONFIG.num_queries)


def test_it_predicts(imported: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "picture.png")
    result = igvg("predict", "--checkpoint", imported, "--image", tmp_path / "picture.png", "--text", "the red car",
                  "--out", tmp_path / "found", "--set", "workers=0")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "found" / "predictions.jsonl").read_text())["id"] == "picture.png/0"


def test_the_token_limit_is_printed_and_can_be_set(published: Path, imported: Path, tmp_path: Path) -> None:
    again = igvg("import", published / "published.pth", "--out", imported)
    assert again.stdout.strip().endswith("at most 18 tokens")
    chosen = ("import", published / "published.pth", "--out", tmp_path / "ours", "--max-tokens")
    assert "max_tokens is 19, not from 3 to 18" in only_error(igvg(*chosen, 19))
    assert igvg(*chosen, 2).returncode == 2
    assert igvg(*chosen, 12).stdout.strip().endswith("at most 12 tokens")


def test_a_file_without_a_moving_average_is_one_line_of_error(published: Path, tmp_path: Path) -> None:
    result = igvg("import", published / "published.pth", "--out", tmp_path / "ours", "--ema")
    assert "holds no moving average of the weights (ema_state_dict); import it without --ema" in only_error(result)


def test_importing_again_changes_nothing_and_says_so(published: Path, imported: Path) -> None:
    before = snapshot(imported)
    again = igvg("import", published / "published.pth", "--out", imported)
    assert again.returncode == 0
    assert "is up to date" in again.stderr
    assert snapshot(imported) == before


def test_without_a_tokenizer_it_says_what_is_lacking_and_where_to_put_it(published: Path, tmp_path: Path) -> None:
    (tmp_path / "alone.pth").write_bytes((published / "published.pth").read_bytes())
    result = igvg("import", tmp_path / "alone.pth", "--out", tmp_path / "ours")
    assert result.returncode == 0, result.stderr
    assert "put beit3.spm into that folder" in result.stderr
    Image.new("RGB", (9, 9)).save(tmp_path / "picture.png")
    predict = ("predict", "--checkpoint", tmp_path / "ours", "--image", tmp_path / "picture.png", "--text", "a car",
               "--out", tmp_path / "found", "--set", "workers=0")  # fmt: skip
    assert "put beit3.spm there" in only_error(igvg(*predict))
    (tmp_path / "ours" / "beit3.spm").write_bytes((published / "beit3.spm").read_bytes())
    assert igvg(*predict).returncode == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "1 missing: head.unet_decoder.conv2_2.weight"),
        ("unexpected", "1 unexpected: head.novelty.weight"),
        ("misshapen", "1 of the wrong shape: head.unet_decoder.conv2_2.weight [5]"),
    ],
)
def test_a_file_that_does_not_fit_the_network_is_refused_whole(tmp_path: Path, change: str, message: str) -> None:
    state = make_published()
    if change == "missing":
        del state["head.unet_decoder.conv2_2.weight"]
    elif change == "unexpected":
        state["head.novelty.weight"] = torch.zeros(2)
    else:
        state["head.unet_decoder.conv2_2.weight"] = torch.zeros(5)
    torch.save(state, tmp_path / "file.pth")
    assert message in only_error(igvg("import", tmp_path / "file.pth", "--out", tmp_path / "out"))
    assert [file.name for file in tmp_path.iterdir()] == ["file.pth"]


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": make_published(), "hook": Trap(str(tmp_path / "trapped"))}, tmp_path / "file.pth")
    error = only_error(igvg("import", tmp_path / "file.pth", "--out", tmp_path / "out"))
    assert "igvg runs no code from checkpoints" in error
    assert [file.name for file in tmp_path.iterdir()] == ["file.pth"]


def test_a_folder_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.pth"):
        assert "is no file; give the .pth" in only_error(igvg("import", path, "--out", tmp_path / "out"))


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)
