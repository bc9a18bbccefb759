"""`igvg import`: a published InstanceVG file in, a checkpoint folder out that predicts as published."""

from __future__ import annotations

from pathlib import Path

from pipelines.data.tokenizer import SENTENCEPIECE_NAME, load_tokenizer
from pipelines.stages.artifact import Stage, StageResult
from pipelines.stages.inputs import digest_input
from shards.errors import ArtifactError, SettingsError


def run(file: Path, out: Path, *, tokenizer: Path | None = None, force: bool = False) -> StageResult[None]:
    """Convert a published checkpoint, once.

    Args:
        file: what the published training saved; its sizes are read off its tensors.
        out: the checkpoint folder.
        tokenizer: the SentencePiece file; None takes beit3.spm beside `file`, if there is one.
        force: replace what igvg left in `out`.

    Returns:
        The artifact; its counts say whether there was a tokenizer.

    Raises:
        ArtifactError: there is no such file, or `out` holds something else.
        CheckpointError: tensors are missing, unexpected or of the wrong shape, or the file asks for code to be run.
        SettingsError: the tokenizer cannot be read, or has more ids than the network.
    """
    if not file.is_file():
        raise ArtifactError(f"{file} is no file; give the .pth that was published")
    if tokenizer is None and (beside := file.with_name(SENTENCEPIECE_NAME)).is_file():
        tokenizer = beside
    inputs = {"checkpoint": digest_input(file)}
    if tokenizer is not None:
        if not tokenizer.is_file():
            raise ArtifactError(f"{tokenizer} is no file; give the published {SENTENCEPIECE_NAME}")
        inputs["tokenizer"] = digest_input(tokenizer)
    stage = Stage(name="import", out=out, inputs=inputs, options={})
    return stage.find(force=force) or _convert(file, tokenizer, stage, force=force)


def _convert(file: Path, tokenizer_file: Path | None, stage: Stage, *, force: bool) -> StageResult[None]:
    # Torch takes seconds to load: only when there is work to do.
    from pipelines.model.convert.instancevg import load_instancevg_checkpoint
    from pipelines.pretrained import default_max_tokens, save_checkpoint

    # Everything is read before the first file is written.
    model = load_instancevg_checkpoint(file)
    tokenizer = load_tokenizer(tokenizer_file) if tokenizer_file else None
    config = model.config
    if tokenizer is not None and len(tokenizer) > config.vocab_size:
        found = f"{tokenizer_file} has {len(tokenizer)} ids, and {file} room for {config.vocab_size}"
        raise SettingsError(f"{found}; give its own")
    stage.start(force=force)
    save_checkpoint(stage.folder, model, tokenizer, default_max_tokens(config))
    counts = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "encoder_layers": config.encoder_layers,
        "image_size": config.image_size,
        "queries": config.num_queries,
        "tokenizer": tokenizer is not None,
    }
    return stage.finish(counts)
