"""Models of transformers out of local folders: safetensors only, no code from the folder, no network."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import logging

from shards.errors import CheckpointError, DataError, join_first
from shards.files import read_json

_SHOWN = 240
# Packages of the extra `zero-shot`, of which some families need one.
_OPTIONAL = ("torchvision", "timm")


def load_model(folder: Path, model_class: str, processor_class: str) -> tuple[Any, Any]:
    """The model, in float32 and evaluation mode on the CPU, and its processor.

    Args:
        folder: config.json, weights in safetensors, preprocessing and tokenizer.
        model_class: a class of transformers.
        processor_class: likewise.

    Raises:
        CheckpointError: a file is missing or damaged, tensors are missing, or a package is not installed.
    """
    for name in (model_class, processor_class):
        if not hasattr(transformers, name):
            version = transformers.__version__
            raise CheckpointError(
                f"{folder} needs {name}, which transformers {version} does not have; upgrade transformers"
            )
    _refuse_downloaded_kernels(folder / "config.json")
    # Without torchvision only these image processors exist: the choice must not depend on what is installed.
    backend = {"backend": "pil"} if int(transformers.__version__.partition(".")[0]) >= 5 else {}
    with _explain_errors(folder), quiet():
        processor = getattr(transformers, processor_class).from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, **backend
        )
        model, found = getattr(transformers, model_class).from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
    _refuse_empty_tokenizer(folder, processor)
    if missing := sorted(found["missing_keys"]):
        raise CheckpointError(f"{folder}: {len(missing)} tensors are missing: {join_first(missing, 5)}; copy it again")
    return model.eval(), processor


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from logging, warning and drawing progress bars."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _explain_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # transformers raises errors of many kinds, also for packages that are not installed
        absent = [name for name in _OPTIONAL if name in str(error).lower() and not importlib.util.find_spec(name)]
        if absent:
            what = f"needs {absent[0]}, which is not installed; pip install 'igvg[zero-shot]'"
            raise CheckpointError(f"{folder} {what}") from error
        remedy = "copy it again from where it was published"
        raise CheckpointError(f"{folder} cannot be loaded by transformers ({_shorten(error)}); {remedy}") from error


@contextlib.contextmanager
def explain_use() -> Iterator[None]:
    """Turn what a model or a processor of transformers raises while it is used into one error.

    Raises:
        CheckpointError: they do not fit together.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # errors of many kinds, from a configuration that does not fit the weights or tokenizer
        what = f"the model, its processor and its tokenizer do not fit together ({_shorten(error)})"
        raise CheckpointError(f"{what}; copy the folder again from where it was published") from error


def _refuse_empty_tokenizer(folder: Path, processor: Any) -> None:
    """Refuse a tokenizer that knows no words: transformers makes one where its files are missing.

    Raises:
        CheckpointError: the tokenizer has special tokens alone.
    """
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is not None and not tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens):
        raise CheckpointError(f"{folder} has no vocabulary; copy tokenizer.json again from where it was published")


def _refuse_downloaded_kernels(file: Path) -> None:
    """Refuse a configuration that names attention code on the hub.

    Raises:
        CheckpointError: it does.
    """
    try:
        remaining = [read_json(file, "a model's configuration in JSON", "copy it again")]
    except DataError as error:
        raise CheckpointError(str(error)) from error
    while remaining:
        value = remaining.pop()
        children = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
        for key, child in children:
            if key in ("attn_implementation", "_attn_implementation") and "/" in str(child):
                raise CheckpointError(
                    f"{file} asks for code from the hub ({key} = {child}), which igvg does not run; remove it"
                )
            remaining += [child] if isinstance(child, dict | list) else []


def _shorten(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
