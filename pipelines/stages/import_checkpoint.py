"""`igvg import`: a published InstanceVG file in, a checkpoint folder out, with the published behaviour."""

from __future__ import annotations

from pathlib import Path

from pipelines.data.tokenizer import SENTENCEPIECE_NAME, load_tokenizer
from pipelines.stages.artifact import Artifact, begin_work, find_finished, finish_work
from shards.errors import ArtifactError, SettingsError
from shards.files import digest_file


def run(file: Path, out: Path, *, tokenizer: Path | None = None, force: bool = False) -> tuple[Artifact, bool]:
    """Convert a published checkpoint, once.

    Args:
        file: what the published training saved; its sizes are read off its tensors.
        out: the checkpoint folder.
        tokenizer: the SentencePiece file; None takes beit3.spm beside `file`, if there is one.
        force: replace what igvg left in `out`.

    Returns:
        The artifact, and whether it was already there. Its counts say whether there was a tokenizer.

    Raises:
        ArtifactError: there is no such file, or `out` holds something else.
        CheckpointError: tensors are missing, unexpected or of the wrong shape, or the file asks for code to be run.
        SettingsError: the tokenizer cannot be read, or has more ids than the network.
    """
    if not file.is_file():
        raise ArtifactError(f"{file} is no file; give the .pth that was published")
    if tokenizer is None and (beside := file.with_name(SENTENCEPIECE_NAME)).is_file():
        tokenizer = beside
    inputs = {"checkpoint": digest_file(file)}
    if tokenizer is not None:
        if not tokenizer.is_file():
            raise ArtifactError(f"{tokenizer} is no file; give the published {SENTENCEPIECE_NAME}")
        inputs["tokenizer"] = digest_file(tokenizer)
    if finished := find_finished(out, "import", inputs, {}, force=force):
        return finished, True
    return _convert(file, tokenizer, out, inputs, force=force), False


def _convert(file: Path, tokenizer: Path | None, out: Path, inputs: dict[str, str], *, force: bool) -> Artifact:
    # Only work that is to be done is worth the seconds that torch takes to load.
    from pipelines.model.convert.instancevg import load_instancevg_checkpoint
    from pipelines.pretrained import default_max_tokens, save_checkpoint

    # Everything is read before the first file is written.
    model = load_instancevg_checkpoint(file)
    words = load_tokenizer(tokenizer) if tokenizer else None
    config = model.config
    if words is not None and len(words) > config.vocab_size:
        raise SettingsError(f"{tokenizer} has {len(words)} ids, and {file} room for {config.vocab_size}; give its own")
    begin_work(out, "import", inputs, {}, force=force)
    save_checkpoint(out, model, words, default_max_tokens(config))
    counts = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "encoder_layers": config.encoder_layers,
        "image_size": config.image_size,
        "queries": config.num_queries,
        "tokenizer": words is not None,
    }
    return finish_work(out, "import", inputs, {}, counts)
