"""What to do after a training has diverged: advice, and a checkpoint of the last saved weights to continue from."""

from __future__ import annotations

import json

from pipelines.model import IGVGModel
from pipelines.pretrained import save_checkpoint
from pipelines.training.folders import LAST_GOOD_FOLDER, STATE_FOLDER
from pipelines.training.setup import Training
from pipelines.training.sharded_state import join_parts
from pipelines.training.sharding import is_sharded
from pipelines.training.state import is_finite, load_tensors
from pipelines.training.state_files import read_state

# Learning rates divided by this are recommended.
_REDUCTION = 10


def advise_after_divergence(training: Training) -> str:
    """What to do after a divergence, a clause; exports the last saved weights if they are finite."""
    optimizer = training.settings.optimizer
    rates = (("encoder_lr", optimizer.encoder_lr), ("head_lr", optimizer.head_lr))
    changes = [f"optimizer.{name}={rate / _REDUCTION:.2g}" for name, rate in rates]
    if training.compute_dtype in ("bf16", "fp16"):
        changes.append("precision=fp32")
    step, folder = export_last_good(training), training.out / LAST_GOOD_FOLDER
    kept = f"the state of step {step} is kept, and its weights are in {folder}"
    words = " ".join(f"--set {change}" for change in changes)
    if training.command == "ablate":
        # All variants have the same settings, but for one.
        state = "no finite state was saved before" if step is None else kept
        return f"{state}: begin again with lower rates for all variants, by the same command with {words}"
    if training.command in ("run", "demo"):
        if "precision=fp32" in changes:
            changes[-1] = 'precision="fp32"'
        if step is not None:
            changes = [f"init={json.dumps(str(folder.resolve()), ensure_ascii=False)}", *changes]
        kept = "no finite state was saved before: begin again" if step is None else f"{kept}: train on from them"
        return f"{kept} with lower rates: {_name_table(training)} {', '.join(changes)}"
    if step is None:
        return f"no finite state was saved before: begin again with lower rates: --force {words}"
    return f"{kept}: continue from it with lower rates, by the same command with --continue-with {words}"


def _name_table(training: Training) -> str:
    """Where the settings of an experiment are changed."""
    if training.command == "run":
        return "in [train] of the experiment"
    # The demo writes its file again; the paths in it are relative to its folder.
    file = training.out.parent.parent / "experiment.toml"
    return f"copy {file} to another name beside it, and igvg run the copy, with these in its [train]:"


def export_last_good(training: Training) -> int | None:
    """Write the weights of the saved state as a checkpoint folder; returns their step, or None without finite weights.

    Every rank that diverges calls this, as it may be the only one; all of them write the same bytes.
    """
    state = read_state(training.out / STATE_FOLDER)
    if state is None:
        return None
    model = training.model
    if is_sharded(model):
        # The other ranks may not be here.
        whole = {name: join_parts(tensor) for name, tensor in state["model"].items()}
        model = IGVGModel.from_state_dict(model.config, whole, "the saved state").to(training.accelerator.device)
    else:
        load_tensors(model, state["model"])
    if not is_finite(model, training):
        return None
    processor = training.data.processor
    save_checkpoint(training.out / LAST_GOOD_FOLDER, model, processor.tokenizer, processor.max_tokens)
    return int(state["step"])
