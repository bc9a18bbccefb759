"""Expressions on their way into the network: cleaned as the published pipeline does, then token ids.

Tokenizers are Hugging Face folders, so a checkpoint's is read by any tool: XLM-R on a SentencePiece file such as
beit3.spm, or a byte-pair vocabulary learnt from the training expressions. In both, <s> is 0, <pad> 1, </s> 2, <unk> 3.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PAD_ID = 1
SENTENCEPIECE_NAME = "beit3.spm"
"""What the published tokenizer is called."""
_SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_CLEANING = str.maketrans({**dict.fromkeys(".,'!?\"()*#:;", ""), "-": " ", "/": " "})


def clean_expression(text: str) -> str:
    """Lower case, without the published list of punctuation; hyphens and slashes become spaces."""
    return " ".join(text.lower().translate(_CLEANING).split())


def tokenize_expressions(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids of each expression with both ends, at most `max_tokens` of them, not padded."""
    cleaned = [clean_expression(text) for text in texts]
    ids: list[list[int]] = tokenizer(cleaned, truncation=True, max_length=max_tokens)["input_ids"]
    return ids


def learn_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-pair vocabulary of at most `vocab_size` ids, learnt from expressions; the same texts give the same ids."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token=_SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(_SPECIAL.values()), show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator((clean_expression(text) for text in texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_SPECIAL)


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a checkpoint folder, or XLM-R's on a SentencePiece file.

    Raises:
        SettingsError: neither is there, or the file is not a SentencePiece model.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging

    if path.is_file():
        return _load_sentencepiece(path)
    if not (path / "tokenizer_config.json").is_file():
        if (path / SENTENCEPIECE_NAME).is_file():
            return _load_sentencepiece(path / SENTENCEPIECE_NAME)
        raise SettingsError(f"{path} holds no tokenizer; put {SENTENCEPIECE_NAME} there, or tokenizer_config.json")
    # It reads config.json too, and warns that it does not know the network there.
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    finally:
        logging.set_verbosity(verbosity)


def _load_sentencepiece(file: Path) -> Any:
    """XLM-R's ids: piece + 1, with <s>, <pad>, </s>, <unk> in front.

    NOTE: transformers 5 ignores a .spm file given to the class by path and maps every word to <unk>; under the name
    `sentencepiece.bpe.model` in a folder it is read.
    """
    from transformers import XLMRobertaTokenizer

    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(file, Path(folder) / "sentencepiece.bpe.model")
        try:
            tokenizer = XLMRobertaTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # whatever the parser of a foreign binary raises
            raise SettingsError(f"{file} is not a SentencePiece model ({type(error).__name__})") from error
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer's files into a checkpoint folder."""
    tokenizer.save_pretrained(str(folder))
