"""Phrases that a network does not get whole are found, whatever its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from pipelines.data.datasets import GroundingDataset
from pipelines.data.processor import Processor
from pipelines.data.tokenizer import load_tokenizer, train_tokenizer
from pipelines.data.truncation import Finding, describe_findings, find_lossy_expressions, find_truncated_expressions
from tests.support.drawn_shards import write_shards

TEXTS = ["the red car", "two blue cars on the left", "the second largest circle"]


@pytest.fixture(scope="module", params=["byte pairs", "SentencePiece"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A vocabulary of a few words, as igvg learns one, and in the form of the published one."""
    if request.param == "byte pairs":
        return train_tokenizer(TEXTS * 5, 200)
    folder = tmp_path_factory.mktemp("spm")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 50), model_prefix=str(folder / "beit3"), vocab_size=60, hard_vocab_limit=False,
        minloglevel=2,
    )  # fmt: skip
    return load_tokenizer((folder / "beit3.model").rename(folder / "beit3.spm"))


@pytest.mark.parametrize(("extra", "kinds"), [(0, []), (1, ["cut"])])
def test_a_phrase_is_cut_from_the_first_token_too_many(tokenizer: Any, extra: int, kinds: list[str]) -> None:
    # Both ends count.
    text = " ".join(["car"] * (8 + extra))
    assert len(tokenizer("car")["input_ids"]) == 3
    found = list(find_lossy_expressions(tokenizer, [("x/1/1", text)], 10))
    assert [one.kind for one in found] == kinds
    assert all((one.id, one.text, one.tokens) == ("x/1/1", text, 11) for one in found)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("the red car", None),
        ("The RED car!", None),
        ("zebra", "unknown"),
        ("zebra, giraffe", "unknown"),
        ("car zebra", None),
        ("\u96ea", "unknown"),
        ("\U0001f600 \U0001f600", "unknown"),
        ("???", "blank"),
        ("", "blank"),
    ],
)
def test_phrases_of_unknown_words_alone_and_without_a_word_are_found(
    tokenizer: Any, text: str, kind: str | None
) -> None:
    assert [found.kind for found in find_lossy_expressions(tokenizer, [("x", text)], 50)] == ([kind] if kind else [])


def test_all_of_many_phrases_are_looked_at(tokenizer: Any) -> None:
    phrases = [(str(number), "???" if number % 700 == 0 else "the red car") for number in range(2100)]
    assert [found.id for found in find_lossy_expressions(tokenizer, phrases, 50)] == ["0", "700", "1400"]


def test_notes_on_a_split_count_each_kind_and_name_the_first() -> None:
    findings = [
        Finding(id="x/1/1", text="a " * 60, kind="cut", tokens=62),
        Finding(id="x/1/2", text="zebra", kind="unknown", tokens=7),
        Finding(id="x/1/3", text="b " * 60, kind="cut", tokens=62),
    ]
    long = f'the first: x/1/1 "{("a " * 60)[:79]}…"'
    assert describe_findings(findings, 50, each=False) == [
        f"2 expressions have more than the 50 tokens that the network takes; the rest is cut off; {long}",
        '1 expression has words alone that the network\'s vocabulary does not know; the first: x/1/2 "zebra"',
    ]


@pytest.mark.parametrize("limit", [3, 4, 6, 10, 50])
def test_phrases_that_are_cut_are_found_without_making_tokens_of_short_ones(tokenizer: Any, limit: int) -> None:
    words = ["car", "zebra", "\u96ea", "a", "two-blue", "\U0001f600", "\u00fc"]
    texts = [" ".join(words[start:] * times) for start in range(len(words)) for times in range(1, 12)]
    phrases = [(str(number), text) for number, text in enumerate([*texts, "", "???", *"abc"])]
    whole = [found for found in find_lossy_expressions(tokenizer, phrases, limit) if found.kind == "cut"]
    assert list(find_truncated_expressions(tokenizer, phrases, limit)) == whole


@pytest.mark.parametrize(("max_tokens", "cut"), [(50, 0), (3, 12)])
def test_a_split_s_cut_expressions_are_counted_and_the_first_is_named(
    tmp_path: Path, tokenizer: Any, max_tokens: int, cut: int
) -> None:
    processor = Processor(tokenizer=tokenizer, max_tokens=max_tokens, image_size=8)
    found = GroundingDataset([(write_shards(tmp_path), "val")], processor, mask_size=0).describe()
    assert found["cut"] == cut
    notes = [note for note in found["notes"] if "tokens" in note]
    assert len(notes) == (cut > 0)
    assert all("12 expressions have more than the 3 tokens" in note for note in notes)
    assert all('the first: grefcoco/1/0 "phrase 0"' in note for note in notes)
