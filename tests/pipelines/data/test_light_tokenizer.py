"""The tokenizer of predictions makes the ids of transformers' tokenizer, without transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sentencepiece

from pipelines.data.light_tokenizer import LightTokenizer, load_light_tokenizer
from pipelines.data.tokenizer import load_tokenizer, save_tokenizer, tokenize_expressions
from pipelines.data.truncation import is_unknown
from pipelines.networks import SHIPPED
from pipelines.pretrained import load_checkpoint
from shards.errors import IGVGError, SettingsError

TEXTS = [
    "The red star!", "ünïcode ☃ ßtraße  doubled   spaces", "日本語 star", "<mask> star <s> </s> <pad> <unk>", "x" * 300,
    "ﬁ ligature Ａ fullwidth", "tab\tnew\nline \u00a0nbsp \u200b zero", "12/05 x-y", "star " * 60,
]  # fmt: skip


def make_sentencepiece(folder: Path) -> Path:
    """A folder as `igvg import` makes it, with XLM-R's tokenizer on a small SentencePiece file."""
    words = "the red star on left a blue circle two small hearts above green square x y"
    (folder / "words.txt").write_text("\n".join([words] * 50))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "words.txt"), model_prefix=str(folder / "beit3"), vocab_size=60, hard_vocab_limit=False,
        minloglevel=2,
    )  # fmt: skip
    save_tokenizer(load_tokenizer((folder / "beit3.model").rename(folder / "beit3.spm")), folder / "saved", 20)
    return folder / "saved"


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_its_ids_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    folder = SHIPPED["shapes"] if kind == "bytes" else make_sentencepiece(tmp_path)
    light, full = load_light_tokenizer(folder), load_tokenizer(folder)
    if (folder / "tokenizer.json").is_file():  # transformers 4 writes none for XLM-R
        assert isinstance(light, LightTokenizer)
    assert tokenize_expressions(light, TEXTS, 20) == tokenize_expressions(full, TEXTS, 20)
    whole = {"truncation": False, "verbose": False}
    assert light(TEXTS, **whole)["input_ids"] == full(TEXTS, **whole)["input_ids"]
    assert light.get_vocab() == full.get_vocab()
    for word in ("star", "zzzq", "日本", "☃"):
        assert is_unknown(light, word) == is_unknown(full, word)


def test_a_folder_that_is_unusual_or_damaged_is_left_to_transformers(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SHIPPED["shapes"], tmp_path / "copy"))
    (folder / "special_tokens_map.json").write_text('{"unk_token": "<unk>"}')
    assert not isinstance(load_light_tokenizer(folder), LightTokenizer)
    (folder / "special_tokens_map.json").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"auto_map": {"AutoTokenizer": "a.B"}}))
    with pytest.raises(SettingsError, match="runs no code from checkpoints"):
        load_light_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(SettingsError, match=r"tokenizer\.json was written by another version of tokenizers, or is dam"):
        load_light_tokenizer(folder)


TWICE = [{"Sequence": {"id": "A", "type_id": 0}}] * 2


@pytest.mark.parametrize(
    ("keys", "value", "error"),
    [
        (("added_tokens",), 71, r"tokenizer\.json was written by another version of tokenizers, or is damaged"),
        (("post_processor", "single"), TWICE, "it makes 64 tokens of a text where 32 are asked for"),
        (
            ("post_processor", "special_tokens", "</s>", "ids"),
            [60000],
            "its tokenizer has ids up to 60000 and its network",
        ),
    ],
    ids=["tokens", "template", "special token"],
)
def test_a_tokenizer_that_makes_ids_which_no_network_takes_is_refused(
    keys: tuple[str, ...], value: object, error: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(SHIPPED["shapes"], tmp_path / "copy"))
    document = json.loads((folder / "tokenizer.json").read_text())
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    assert keys[-1] in inner
    inner[keys[-1]] = value
    (folder / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(IGVGError, match=error):
        load_checkpoint(folder, load_light_tokenizer)
