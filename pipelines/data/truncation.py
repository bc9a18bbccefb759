"""Expressions that lose information in tokenization: cut at the token limit, or without a known word."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.data.tokenizer import clean_expression, encode_texts

_BATCH = 1000
_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One expression that loses information in tokenization."""

    id: str
    text: str
    kind: str
    """"cut", "unknown" (no word is in the vocabulary) or "blank" (there is no word)."""
    tokens: int
    """Tokens of the whole expression, including <s> and </s>."""


def find_lossy_expressions(
    tokenizer: Any, expressions: Iterable[tuple[str, str]], max_tokens: int
) -> Iterator[Finding]:
    """The expressions, pairs of id and text, that lose information in tokenization to at most `max_tokens` ids."""
    for name, text, length in _count_tokens(tokenizer, expressions):
        clean = clean_expression(text)
        kind = "cut" if length > max_tokens else "" if clean else "blank"
        if not kind and all(is_unknown(tokenizer, word) for word in clean.split()):
            kind = "unknown"
        if kind:
            yield Finding(id=name, text=text, kind=kind, tokens=length)


def find_truncated_expressions(
    tokenizer: Any, expressions: Iterable[tuple[str, str]], max_tokens: int
) -> Iterator[Finding]:
    """The expressions that are cut at the token limit.

    Only long texts are tokenized: each token takes at least one byte, besides <s>, </s> and SentencePiece's first mark.
    """
    long = ((name, text) for name, text in expressions if len(clean_expression(text).encode()) + 3 > max_tokens)
    for name, text, length in _count_tokens(tokenizer, long):
        if length > max_tokens:
            yield Finding(id=name, text=text, kind="cut", tokens=length)


def warn_of_truncation(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> None:
    """Warn of each text that is cut at the token limit, in the words of `igvg predict`."""
    named = ((str(row), text) for row, text in enumerate(texts))
    warn_of_findings(find_truncated_expressions(tokenizer, named, max_tokens), max_tokens)


def warn_of_findings(findings: Iterable[Finding], max_tokens: int) -> None:
    """Warn of each finding."""
    for line in describe_findings(list(findings), max_tokens, each=True):
        warnings.warn(line, UserWarning, stacklevel=4)


def _count_tokens(tokenizer: Any, expressions: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, int]]:
    """Id, text and number of tokens of each expression."""
    remaining = iter(expressions)
    while batch := list(itertools.islice(remaining, _BATCH)):
        cleaned = [clean_expression(text) for _, text in batch]
        # verbose=True warns of each long text.
        tokens = encode_texts(tokenizer, cleaned, truncation=False, verbose=False)
        yield from ((name, text, len(ids)) for (name, text), ids in zip(batch, tokens, strict=True))


def is_unknown(tokenizer: Any, word: str) -> bool:
    """Whether a word is not in a vocabulary: all of it is <unk>, or it is split into single letters.

    A byte-pair vocabulary that was trained on expressions contains their letters, so it splits an unknown word into
    letters. Words of other scripts count as known then: a single letter may be a word.
    """
    (ids,) = encode_texts(tokenizer, [word], add_special_tokens=False)
    # SentencePiece marks the beginning of a word, in a token of its own if the first piece is unknown.
    pieces = [piece.removeprefix("▁") for piece in tokenizer.convert_ids_to_tokens(ids)]
    unknown = [piece == tokenizer.unk_token for piece in pieces if piece]
    if all(unknown):
        return True
    is_spelled = all(len(piece) <= 1 or piece == tokenizer.unk_token for piece in pieces)
    return is_spelled and word.isascii() and len(word) > 1


def describe_findings(findings: list[Finding], max_tokens: int, *, each: bool) -> list[str]:
    """A line for each finding, or a line for each kind with its count and first finding."""
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
        if same := [found for found in findings if found.kind == kind]:
            count = f"{len(same)} expressions have" if len(same) > 1 else "1 expression has"
            lines.append(f'{count} {clause}; the first: {same[0].id} "{_shorten(same[0].text)}"')
    return lines


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
