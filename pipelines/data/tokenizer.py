"""Tokenizers: expressions are cleaned as in the published pipeline and become token ids.

A checkpoint's tokenizer is kept as Hugging Face transformers keeps it: XLM-R's on a SentencePiece file such as
beit3.spm, or a byte-pair vocabulary trained on the expressions. In both, <s> is 0, <pad> 1, </s> 2, <unk> 3.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from shards.errors import DataError, SettingsError, find_system_error
from shards.file_kinds import explain_unreadable
from shards.files import name_file, read_json, temporary_path, write_bytes

PAD_ID = 1
SENTENCEPIECE_NAME = "beit3.spm"
"""The file name of the published tokenizer."""
TOKENIZER_CONFIG, TOKENIZER_FILE = "tokenizer_config.json", "tokenizer.json"
_TOKENIZER_JSON = (TOKENIZER_CONFIG, TOKENIZER_FILE, "special_tokens_map.json", "added_tokens.json", "vocab.json")
_TRIAL, _TRIAL_TOKENS = "a ☃ " * 32, 32
# Files that tokenizer classes read instead of tokenizer.json.
_VOCABULARIES = ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "vocab.txt", "vocab.json", "spm.model")
_REMEDY = "copy the tokenizer's files again from where igvg wrote them, or make the checkpoint again"
_SHOWN = 160
_HIDING, _ENCODING = threading.RLock(), threading.RLock()
_SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
# Surrogates: JSON can hold them, and tokenizers refuse them.
_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "")
_CLEANING = _SURROGATES | str.maketrans({**dict.fromkeys(".,'!?\"()*#:;", ""), "-": " ", "/": " "})


def clean_expression(text: str) -> str:
    """Lower case without the punctuation of the published list and without surrogates; - and / become spaces."""
    return " ".join(text.lower().translate(_CLEANING).split())


def check_expressions(texts: Sequence[str]) -> None:
    """Check that there are expressions, each with a word.

    Raises:
        SettingsError: there is none, or one has no word.
    """
    if not texts:
        raise SettingsError("there is no expression; say what to look for")
    for text in texts:
        if not isinstance(text, str):
            raise SettingsError(f"an expression is of type {type(text).__name__}; give a string")
        if not clean_expression(text):
            raise SettingsError(f"the expression {text!r} has no word: punctuation is left out; say what to look for")


def tokenize_expressions(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids of each expression, at most `max_tokens` including <s> and </s>, not padded."""
    return encode_texts(tokenizer, [clean_expression(text) for text in texts], truncation=True, max_length=max_tokens)


def encode_texts(tokenizer: Any, texts: Sequence[str], **options: Any) -> list[list[int]]:
    """What a tokenizer makes of each text with options of its call.

    One thread at a time: a tokenizer remembers between two calls what it cuts texts to.
    """
    with _ENCODING:
        ids: list[list[int]] = tokenizer(list(texts), **options)["input_ids"]
    return ids


def try_tokenizer(tokenizer: Any) -> list[int]:
    """The ids of a text of known and unknown words; it is also cut, as expressions are.

    Raises:
        ValueError: there are none, or too many after a cut.
    """
    (cut,) = encode_texts(tokenizer, [_TRIAL], truncation=True, max_length=_TRIAL_TOKENS)
    # Last, because a tokenizer keeps what it was asked for, and writes it into its file.
    (ids,) = encode_texts(tokenizer, [_TRIAL], verbose=False)
    if not ids:
        raise ValueError("it makes no tokens of words")
    if len(cut) > _TRIAL_TOKENS:
        raise ValueError(f"it makes {len(cut)} tokens of a text where {_TRIAL_TOKENS} are asked for")
    return ids


def find_highest_id(tokenizer: Any) -> int:
    """The highest id that a tokenizer makes: of its vocabulary, or of what it puts around a text.

    Raises:
        ValueError: it makes no ids of words.
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return max([*vocabulary.values(), *try_tokenizer(tokenizer)])


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-pair tokenizer of at most `vocab_size` ids, trained on expressions; the same texts give the same ids."""
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
    """The tokenizer of a checkpoint folder, or XLM-R's on a SentencePiece file; no code from the folder is run.

    Raises:
        SettingsError: there is no tokenizer, a file is damaged or of another kind, or its class is unknown.
    """
    if path.is_file():
        return _load_sentencepiece(path)
    config = path / TOKENIZER_CONFIG
    if not config.is_file():
        if (path / SENTENCEPIECE_NAME).is_file():
            return _load_sentencepiece(path / SENTENCEPIECE_NAME)
        if (path / TOKENIZER_FILE).is_file():
            raise SettingsError(f"{path} holds {TOKENIZER_FILE}, but no {TOKENIZER_CONFIG}; copy both")
        raise SettingsError(f"{path} holds no tokenizer; put {SENTENCEPIECE_NAME} there, or {TOKENIZER_CONFIG}")
    if not any((path / name).is_file() for name in (TOKENIZER_FILE, *_VOCABULARIES)):
        raise SettingsError(f"{path} holds {TOKENIZER_CONFIG}, but no {TOKENIZER_FILE}; copy both")
    kind = _choose_class(config)
    from transformers.utils import logging

    # transformers also reads config.json, and warns of the unknown model type.
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with _without_byte_order_marks(path) as folder, hide_panics():
            tokenizer = kind.from_pretrained(str(folder), local_files_only=True)
            try_tokenizer(tokenizer)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the Rust parser is no Exception
        _refuse_damaged_file(path)
        raise SettingsError(
            f"{path}: its tokenizer cannot be used ({_shorten(error)}); {_describe_versions()}, so {_REMEDY}"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    return tokenizer


@contextlib.contextmanager
def _without_byte_order_marks(folder: Path) -> Iterator[Path]:
    """The folder, or a copy of its tokenizer without byte-order marks, which the libraries refuse."""
    files = [file for name in (*_TOKENIZER_JSON, *_VOCABULARIES) if (file := folder / name).is_file()]
    if not any(_has_byte_order_mark(file) for file in files):
        yield folder
        return
    with tempfile.TemporaryDirectory() as copy:
        for file in files:
            (Path(copy) / file.name).write_bytes(file.read_bytes().removeprefix(codecs.BOM_UTF8))
        yield Path(copy)


@contextlib.contextmanager
def hide_panics() -> Iterator[None]:
    """Hide the traceback that the Rust parser prints to file descriptor 2 when it panics."""
    # One thread at a time: another would take the place of the hidden descriptor for the one to restore.
    with _HIDING, contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # closed
            stderr = os.dup(2)
            stack.callback(os.close, stderr)
            stack.callback(os.dup2, stderr, 2)
            with Path(os.devnull).open("wb") as devnull:
                os.dup2(devnull.fileno(), 2)
        yield


def _has_byte_order_mark(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def _choose_class(file: Path) -> Any:
    """The tokenizer class of transformers that a tokenizer_config.json names.

    Raises:
        SettingsError: the file cannot be read, or names an unknown class or code of its own.
    """
    import transformers

    config = _read_json(file)
    name = config.get("tokenizer_class") or "PreTrainedTokenizerFast"
    # transformers 5 and IGVGTokenizer, the same class for transformers, write these names.
    name = "PreTrainedTokenizerFast" if name in ("TokenizersBackend", "IGVGTokenizer") else name
    if config.get("auto_map"):
        raise SettingsError(
            f"{file} names program code of its own (auto_map), and igvg runs no code from checkpoints; {_REMEDY}"
        )
    kind = getattr(transformers, name, None) if isinstance(name, str) and name.isidentifier() else None
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedTokenizerBase):
        raise SettingsError(
            f"{file} names the tokenizer class {str(name)[:60]!r}, which transformers {transformers.__version__} does "
            f"not have; {_REMEDY}"
        )
    return kind


def _refuse_damaged_file(folder: Path) -> None:
    """Check each file of a tokenizer that could not be loaded.

    Raises:
        SettingsError: a file is damaged; names it.
    """
    import tokenizers

    for name in _TOKENIZER_JSON:
        if (folder / name).is_file():
            _read_json(folder / name)
    file = folder / TOKENIZER_FILE
    try:
        if file.is_file():
            with hide_panics():
                tokenizers.Tokenizer.from_file(str(file))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise SettingsError(
            f"{file} was written by another version of tokenizers, or is damaged ({_shorten(error)}); "
            f"{_describe_versions()}, so {_REMEDY}"
        ) from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        document = read_json(file, "a tokenizer's file in JSON", _REMEDY)
    except DataError as error:
        raise SettingsError(str(error)) from error
    if not isinstance(document, dict):
        raise SettingsError(f"{file} holds no JSON object, as tokenizers are kept in; {_REMEDY}")
    return document


def _describe_versions() -> str:
    from importlib import metadata

    return f"here is tokenizers {metadata.version('tokenizers')} with transformers {metadata.version('transformers')}"


def _shorten(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if 0 < len(text) <= _SHOWN else f"{text[:_SHOWN]}…" if text else type(error).__name__


def _load_sentencepiece(file: Path) -> Any:
    """XLM-R's tokenizer: the ids are those of the SentencePiece file + 1, after <s>, <pad>, </s>, <unk>.

    NOTE: transformers 5 ignores a .spm file given to the class by path and maps every word to <unk>; under the name
    `sentencepiece.bpe.model` in a folder it is read.
    """
    from transformers import XLMRobertaTokenizer

    with tempfile.TemporaryDirectory() as folder:
        try:
            with name_file(file):
                shutil.copyfile(file, Path(folder) / "sentencepiece.bpe.model")
            tokenizer = XLMRobertaTokenizer.from_pretrained(folder, local_files_only=True)
            # transformers 4 returns False for a file that is no SentencePiece model.
            if isinstance(tokenizer, bool):
                raise ValueError("transformers does not read it")
            return tokenizer
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the parser is no Exception
            reason = error if isinstance(error, OSError) else type(error).__name__
            remedy = f"give the published {SENTENCEPIECE_NAME}, or copy it again"
            unreadable = explain_unreadable(file, "a SentencePiece model", reason, remedy, kinds=("SentencePiece",))
            raise SettingsError(str(unreadable)) from error


def save_tokenizer(tokenizer: Any, folder: Path, max_tokens: int | None = None) -> None:
    """Write the tokenizer's files into a checkpoint folder; each replaces an older one only when all are whole.

    Args:
        tokenizer: of the network.
        folder: of the checkpoint.
        max_tokens: tokens of an expression at most; None: not said.

    Raises:
        OSError: a file cannot be written; names it.
    """
    with temporary_path(folder / "tokenizer") as draft:
        _write_files(tokenizer, draft, folder, max_tokens)
        for file in sorted(draft.iterdir()):
            write_bytes(folder / file.name, file.read_bytes())


def _write_files(tokenizer: Any, draft: Path, folder: Path, max_tokens: int | None) -> None:
    """Write all files into `draft`; errors of the system name them as files of `folder`."""
    try:
        draft.mkdir(parents=True)
        if tokenizer.is_fast:
            # What the last text was cut and padded to is no property of a tokenizer, but would be written.
            tokenizer.backend_tokenizer.no_truncation()
            tokenizer.backend_tokenizer.no_padding()
        tokenizer.save_pretrained(str(draft))
        _describe_for_all_versions(draft / TOKENIZER_CONFIG, max_tokens)
    except Exception as error:  # the library wraps errors of the system in various classes
        written = [name for name in (TOKENIZER_CONFIG, TOKENIZER_FILE) if (draft / name).exists()]
        file = folder / written[-1] if written else folder
        raise find_system_error(error, file) or error from error


def _describe_for_all_versions(file: Path, max_tokens: int | None) -> None:
    """Leave out the class of a tokenizer.json: transformers 4 does not know the names of transformers 5.

    Without a class, transformers takes that which igvg registers for its networks.
    """
    config = json.loads(file.read_text(encoding="utf-8"))
    if (file.parent / TOKENIZER_FILE).exists():
        config.pop("tokenizer_class", None)
    if max_tokens is not None:
        config["model_max_length"] = max_tokens
    file.write_text(json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
