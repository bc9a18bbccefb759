"""`igvg import`: a published InstanceVG file in, a checkpoint folder out that predicts as published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.data.tokenizer import SENTENCEPIECE_NAME, find_highest_id, load_tokenizer
from pipelines.hub.names import find_commit, parse_hub_name
from pipelines.networks import resolve_checkpoint
from pipelines.stages.artifact import Stage, StageResult
from pipelines.stages.inputs import digest_input
from shards.errors import ArtifactError, SettingsError


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What a user decides about an import."""

    max_tokens: int | None = None
    """Tokens of an expression at most, including <s> and </s>; None: as the checkpoint was trained."""
    ema: bool = False
    """Take the exponential moving average of the weights instead of the weights."""

    def to_json(self) -> dict[str, Any]:
        """The options that differ from the defaults."""
        given = {"max_tokens": self.max_tokens, "ema": self.ema or None}
        return {name: value for name, value in given.items() if value is not None}


def run(
    file: Path, out: Path, options: ImportOptions = ImportOptions(), *, tokenizer: Path | None = None,
    force: bool = False,
) -> StageResult[None]:  # fmt: skip
    """Convert a published checkpoint, once.

    Args:
        file: what the published training saved, or its name on the hub (hf://USER/REPO/FILE); its sizes are read off
            its tensors.
        out: the checkpoint folder.
        options: the token limit, and which weights.
        tokenizer: the SentencePiece file; None takes beit3.spm beside `file`, if there is one.
        force: replace what igvg left in `out`.

    Returns:
        The artifact; its counts say whether there was a tokenizer.

    Raises:
        ArtifactError: there is no such file, or `out` holds something else.
        CheckpointError: tensors are missing, unexpected or of the wrong shape, the file asks for code to be run, it has
            no moving average, or the hub has no such file.
        SettingsError: the tokenizer cannot be read, or has more ids than the network; or there are fewer text positions
            than tokens.
    """
    refuse_repository(file)
    file = resolve_checkpoint(file)
    if not file.is_file():
        raise ArtifactError(f"{file} is no file; give the .pth that was published")
    if tokenizer is None and (beside := file.with_name(SENTENCEPIECE_NAME)).is_file():
        tokenizer = beside
    inputs = {"checkpoint": digest_input(file)}
    if tokenizer is not None:
        if not tokenizer.is_file():
            raise ArtifactError(f"{tokenizer} is no file; give the published {SENTENCEPIECE_NAME}")
        inputs["tokenizer"] = digest_input(tokenizer)
    stage = Stage(name="import", out=out, inputs=inputs, options=options.to_json())
    cached = stage.find(force=force)
    if cached and cached.counts.get("queries") == 1 and "max_tokens" not in cached.counts:
        raise ArtifactError(f"{out} was imported by an earlier igvg with 50 tokens, but trained with 20; add --force")
    if cached:
        return cached
    with stage.claim(force=force) as cached:
        return cached or _convert(file, tokenizer, options, stage, force=force)


def refuse_repository(checkpoint: Path) -> None:
    """Check that a name of the hub names a file, before its whole repository is downloaded.

    Raises:
        ArtifactError: it names a repository.
    """
    on_hub = None if checkpoint.exists() else parse_hub_name(checkpoint)
    if on_hub is not None and not on_hub.file:
        raise ArtifactError(f"{on_hub} names no file; give the .pth that was published, as hf://{on_hub.repo}/FILE.pth")


def _convert(
    file: Path, tokenizer_file: Path | None, options: ImportOptions, stage: Stage, *, force: bool
) -> StageResult[None]:
    # Torch takes seconds to load: only when there is work to do.
    from pipelines.model.convert.instancevg import infer_max_tokens, load_instancevg_checkpoint
    from pipelines.pretrained import save_checkpoint

    # Everything is read before the first file is written.
    model = load_instancevg_checkpoint(file, ema=options.ema)
    tokenizer = load_tokenizer(tokenizer_file) if tokenizer_file else None
    config = model.config
    if tokenizer is not None and (highest := find_highest_id(tokenizer)) >= config.vocab_size:
        found = f"{tokenizer_file} has ids up to {highest}, and {file} room for {config.vocab_size}"
        raise SettingsError(f"{found}; give its own")
    most = config.text_positions - 2
    max_tokens = infer_max_tokens(config) if options.max_tokens is None else options.max_tokens
    if not 2 < max_tokens <= most:
        raise SettingsError(f"max_tokens is {max_tokens}, not from 3 to {most}, the text positions of {file}")
    stage.start(force=force)
    save_checkpoint(stage.folder, model, tokenizer, max_tokens)
    counts: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "encoder_layers": config.encoder_layers,
        "image_size": config.image_size,
        "queries": config.num_queries,
        "max_tokens": max_tokens,
        "tokenizer": tokenizer is not None,
    }
    if commit := find_commit(file):
        counts["hub"] = commit
    return stage.finish(counts)
