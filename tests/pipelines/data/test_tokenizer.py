"""Expressions become token ids as the published pipeline makes them."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.light_tokenizer import LightTokenizer, load_light_tokenizer
from pipelines.data.tokenizer import (
    clean_expression,
    find_highest_id,
    hide_panics,
    load_tokenizer,
    save_tokenizer,
    tokenize_expressions,
    train_tokenizer,
)
from pipelines.networks import SHIPPED
from shards.errors import SettingsError

TEXTS = ["the two red cars", "every red car on the left", "two people", "the left person"] * 3


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("The LEFT one", "the left one"),
        ("man's hat, right!", "mans hat right"),
        ("half an emoji \ud83d", "half an emoji"),
        ("t-shirt/jacket", "t shirt jacket"),
        ('"(a) *b* #3: c;?"', "a b 3 c"),
        ("  wide   gaps ", "wide gaps"),
        ("?!", ""),
    ],
)
def test_expressions_are_cleaned(text: str, cleaned: str) -> None:
    assert clean_expression(text) == cleaned


@given(st.text())
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    # Some capitals have no lower case of one letter.
    once = clean_expression(text)
    assert clean_expression(once) == once


def test_both_ends_are_marked() -> None:
    ids = tokenize_expressions(train_tokenizer(TEXTS, 100), ["the red car"], 50)[0]
    assert (ids[0], ids[-1]) == (0, 2)
    assert len(ids) == 5


def test_long_expressions_are_cut_and_keep_their_end() -> None:
    ids = tokenize_expressions(train_tokenizer(TEXTS, 100), ["the red car " * 9], 6)[0]
    assert len(ids) == 6
    assert ids[-1] == 2


def test_an_expression_of_nothing_is_its_two_ends() -> None:
    assert tokenize_expressions(train_tokenizer(TEXTS, 100), ["?"], 50) == [[0, 2]]


def test_letters_never_seen_are_unknown() -> None:
    assert 3 in tokenize_expressions(train_tokenizer(TEXTS, 100), ["ξ"], 50)[0]


def test_the_same_texts_give_the_same_ids() -> None:
    first, second = (train_tokenizer(TEXTS, 60) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()


def test_a_saved_tokenizer_gives_the_same_ids(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 60)
    save_tokenizer(tokenizer, tmp_path)
    texts = [*TEXTS, "something new"]
    assert tokenize_expressions(load_tokenizer(tmp_path), texts, 9) == tokenize_expressions(tokenizer, texts, 9)


def test_what_was_cut_last_is_not_saved(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 60)
    assert find_highest_id(tokenizer) == len(tokenizer) - 1
    tokenizer(TEXTS, truncation=True, max_length=7, padding=True)
    save_tokenizer(tokenizer, tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    assert (document["truncation"], document["padding"]) == (None, None)


def test_the_highest_id_may_be_one_that_stands_around_a_text() -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 7)])
    assert not backend.get_vocab()
    assert find_highest_id(LightTokenizer(backend, "<unk>")) == 7


def test_threads_share_a_tokenizer_although_they_cut_texts_at_different_lengths() -> None:
    tokenizer = load_light_tokenizer(SHIPPED["shapes"])
    assert isinstance(tokenizer, LightTokenizer)
    texts = ["the red star on the left " * 20] * 50

    def count(max_tokens: int) -> set[int]:
        repetitions = (tokenize_expressions(tokenizer, texts, max_tokens) for _ in range(50))
        return {len(ids) for encoded in repetitions for ids in encoded}

    with ThreadPoolExecutor(2) as executor:
        assert list(executor.map(count, [5, 50])) == [{5}, {50}]


class TestPanicsAreHidden:
    def test_by_one_thread_at_a_time(self, capfd: pytest.CaptureFixture[str]) -> None:
        entered = threading.Event()

        def hide() -> None:
            with hide_panics():
                entered.set()

        with hide_panics():
            thread = threading.Thread(target=hide)
            thread.start()
            os.write(2, b"hidden")
            assert not entered.wait(0.2)
        thread.join()
        assert entered.is_set()
        os.write(2, b"shown")
        assert capfd.readouterr().err == "shown"

    def test_and_a_closed_descriptor_stays_closed(self) -> None:
        code = (
            "import os\nfrom pipelines.data.tokenizer import hide_panics\nos.close(2)\n"
            "with hide_panics():\n    pass\n"
            "try:\n    os.fstat(2)\nexcept OSError:\n    print('closed')"
        )
        words = [sys.executable, "-c", code]
        result = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        assert result.stdout == "closed\n"


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)


def test_a_file_that_is_no_sentencepiece_model_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "beit3.spm"
    file.write_bytes(b"no model")
    with pytest.raises(SettingsError, match="not a SentencePiece model"):
        load_tokenizer(file)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SentencePiece model."""
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "texts.txt").write_text(
        "\n".join(TEXTS + ["a man in a striped t-shirt", "woman holding an umbrella"] * 9)
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "texts.txt"), model_prefix=str(folder / "beit3"), vocab_size=60, hard_vocab_limit=False,
        minloglevel=2,
    )  # fmt: skip
    return (folder / "beit3.model").rename(folder / "beit3.spm")


@given(text=st.text(st.sampled_from("aeinorstw dhlmu TR-/'.,ξ字"), max_size=80))
def test_ids_are_those_of_sentencepiece_moved_up_by_one_between_both_ends(pieces: Path, text: str) -> None:
    # XLM-R keeps 0 to 3 for <s>, <pad>, </s> and <unk>; SentencePiece's own <unk>, <s>, </s> are 0 to 2.
    library = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    expected = [piece + 1 if piece else 3 for piece in library.encode(clean_expression(text))]
    assert tokenize_expressions(load_pieces(pieces), [text], 50) == [[0, *expected[:48], 2]]


def test_words_of_a_sentencepiece_file_are_not_all_unknown(pieces: Path) -> None:
    ids = tokenize_expressions(load_pieces(pieces), ["the two red cars"], 50)[0]
    assert 3 not in ids
    assert len(set(ids)) > 4


def test_a_sentencepiece_tokenizer_is_kept_by_a_checkpoint_folder(pieces: Path, tmp_path: Path) -> None:
    save_tokenizer(load_pieces(pieces), tmp_path)
    texts = ["the left person", "Red CARS / umbrella"]
    again = load_tokenizer(tmp_path)
    assert tokenize_expressions(again, texts, 50) == tokenize_expressions(load_pieces(pieces), texts, 50)


@functools.cache
def load_pieces(file: Path) -> Any:
    """Loading takes longer than all that is asked of it."""
    return load_tokenizer(file)
