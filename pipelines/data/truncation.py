"""Phrases that a network does not get whole: cut at its number of tokens, of unknown words alone, or of no word."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.data.tokenizer import clean_expression

_BATCH = 1000
_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One phrase that the network does not get whole."""

    id: str
    text: str
    kind: str
    """"cut", "unknown" (no word is known) or "blank" (there is no word)."""
    tokens: int
    """Tokens of the whole phrase, both ends included."""


def find_lossy_expressions(tokenizer: Any, phrases: Iterable[tuple[str, str]], max_tokens: int) -> Iterator[Finding]:
    """The phrases that the network does not get whole.

    Args:
        tokenizer: of the network.
        phrases: id and text of each.
        max_tokens: tokens at most, both ends included.
    """
    waiting = iter(phrases)
    while batch := list(itertools.islice(waiting, _BATCH)):
        cleaned = [clean_expression(text) for _, text in batch]
        # Not verbose: it would warn of each long phrase.
        lengths = [len(ids) for ids in tokenizer(cleaned, truncation=False, verbose=False)["input_ids"]]
        for (name, text), clean, length in zip(batch, cleaned, lengths, strict=True):
            kind = "cut" if length > max_tokens else "" if clean else "blank"
            if not kind and all(is_unknown(tokenizer, word) for word in clean.split()):
                kind = "unknown"
            if kind:
                yield Finding(id=name, text=text, kind=kind, tokens=length)


def find_truncated_expressions(
    tokenizer: Any, phrases: Iterable[tuple[str, str]], max_tokens: int
) -> Iterator[Finding]:
    """Those of `find_lossy_expressions` that are cut, without a look at the others' words.

    A token stands for one byte at least, beside both ends and the mark with which SentencePiece begins: of the
    shorter phrases, nearly all of a data set, no token is made.
    """
    long = ((name, text) for name, text in phrases if len(clean_expression(text).encode()) + 3 > max_tokens)
    while batch := list(itertools.islice(long, _BATCH)):
        cleaned = [clean_expression(text) for _, text in batch]
        lengths = [len(ids) for ids in tokenizer(cleaned, truncation=False, verbose=False)["input_ids"]]
        for (name, text), length in zip(batch, lengths, strict=True):
            if length > max_tokens:
                yield Finding(id=name, text=text, kind="cut", tokens=length)


def is_unknown(tokenizer: Any, word: str) -> bool:
    """Whether a vocabulary does not know a word: it maps all of it to <unk>, or spells it letter by letter.

    A byte-pair vocabulary that was learnt from expressions knows their letters, too, so a word it never saw is spelt.
    Words of other scripts are not judged by their letters: one letter may be a word there.
    """
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    # SentencePiece marks the beginning of a word, with a piece of its own where the word's first one is unknown.
    pieces = [piece.removeprefix("▁") for piece in tokenizer.convert_ids_to_tokens(ids)]
    unknown = [piece == tokenizer.unk_token for piece in pieces if piece]
    if all(unknown):
        return True
    spelt = all(len(piece) <= 1 or piece == tokenizer.unk_token for piece in pieces)
    return spelt and word.isascii() and len(word) > 1


def describe_findings(findings: list[Finding], max_tokens: int, *, each: bool) -> list[str]:
    """Lines on what was found: one for each phrase, or one for each kind with the first of it."""
    words = {
        "cut": f"more than the {max_tokens} tokens that the network takes; the rest is cut off",
        "unknown": "words alone that the network's vocabulary does not know",
        "blank": "no word once punctuation is left out",
    }
    if each:
        return [
            f'the text "{_shorten(found.text)}" has {words[found.kind]}'
            + (f" ({found.tokens} tokens)" if found.kind == "cut" else "")
            for found in findings
        ]
    lines = []
    for kind, clause in words.items():
        if chosen := [found for found in findings if found.kind == kind]:
            count = f"{len(chosen)} expressions have" if len(chosen) > 1 else "1 expression has"
            lines.append(f'{count} {clause}; the first: {chosen[0].id} "{_shorten(chosen[0].text)}"')
    return lines


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
