"""A tokenizer.json read by the library of tokenizers alone: importing transformers takes a third of a second.

The ids are those of `load_tokenizer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.data.tokenizer import TOKENIZER_CONFIG, TOKENIZER_FILE, hide_panics, load_tokenizer, try_tokenizer
from shards.errors import DataError
from shards.files import read_json

_CLASSES = (None, "PreTrainedTokenizerFast", "TokenizersBackend", "IGVGTokenizer")
# Files that transformers reads besides; a folder that has them is left to it.
_OTHERS = ("special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True)
class LightTokenizer:
    """What prediction needs of a tokenizer, called as those of transformers."""

    tokenizer: Any
    """Of the library of tokenizers."""
    unk_token: str

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        truncation: bool = False,
        max_length: int | None = None,
        add_special_tokens: bool = True,
        verbose: bool = True,  # noqa: ARG002  # transformers warns of long texts
    ) -> dict[str, Any]:
        """`input_ids` of a text, or of each of several."""
        if truncation and max_length is not None:
            self.tokenizer.enable_truncation(max_length)
        else:
            self.tokenizer.no_truncation()
        texts = [text] if isinstance(text, str) else list(text)
        encodings = self.tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)
        ids = [encoding.ids for encoding in encodings]
        return {"input_ids": ids[0] if isinstance(text, str) else ids}

    def get_vocab(self) -> dict[str, int]:
        """The id of each token."""
        vocab: dict[str, int] = self.tokenizer.get_vocab(with_added_tokens=True)
        return vocab

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """The token of each id."""
        return [self.tokenizer.id_to_token(token) for token in ids]


def load_light_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint folder for prediction; that of `load_tokenizer` where more than one file decides.

    Raises:
        SettingsError: as `load_tokenizer`.
    """
    return _read_light(folder) or load_tokenizer(folder)


def _read_light(folder: Path) -> LightTokenizer | None:
    """None where the folder has anything unusual, which `load_tokenizer` reads or explains."""
    import tokenizers

    file = folder / TOKENIZER_FILE
    if not file.is_file() or any((folder / name).exists() for name in _OTHERS):
        return None
    try:
        config = read_json(folder / TOKENIZER_CONFIG, "a tokenizer's file in JSON", "")
        content = read_json(file, "a tokenizer's file in JSON", "")
    except DataError:
        return None
    if not isinstance(config, dict) or not isinstance(content, dict):
        return None
    unk_token = str(config.get("unk_token"))
    added = content.get("added_tokens")
    known = [token.get("content") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    if config.get("tokenizer_class") not in _CLASSES or config.get("auto_map") or unk_token not in known:
        return None
    try:
        with hide_panics():
            light = LightTokenizer(tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8")), unk_token)
            try_tokenizer(light)
            return light
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic of the Rust parser is no Exception; load_tokenizer explains it
        return None
