"""A training that diverges stops in one line, keeps its last good weights, and says what works."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.config.settings import TextSettings
from pipelines.training.divergence import DivergenceError
from pipelines.training.setup import Training, TrainingCommand
from pipelines.training.state import save_state
from pipelines.training.trainer import open_batches, train, train_step
from tests.support.drawn_shards import write_shards
from tests.support.pipeline_runs import SMALL_NETWORK, igvg, only_error
from tests.support.small_training import open_small

TEXT = TextSettings(max_tokens=8)
# With and without a target in the whole data set: without one no query is matched.
REFERENCES = {"only-empty": ((), ()), "targets": ((0,), (0, 1))}


def diverge(training: Training) -> str:
    """Train at rates that no weight survives; returns what is said."""
    for group in training.optimizer.param_groups:
        group["base_lr"] = 1e30
    with pytest.raises(DivergenceError) as error:
        train(training)
    return str(error.value)


@pytest.mark.parametrize("log_steps", [1, 1000])
@pytest.mark.parametrize("kind", REFERENCES)
def test_the_last_good_weights_stay_and_can_be_trained_on_from(tmp_path: Path, kind: str, log_steps: int) -> None:
    shards = write_shards(tmp_path / "drawn", references=REFERENCES[kind])
    training = open_small(shards, tmp_path / "my run", log_steps=log_steps, max_steps=40, epochs=40, text=TEXT)
    training.step = 1
    save_state(training)
    good = {name: value.clone() for name, value in training.model.state_dict().items()}
    said = diverge(training)
    folder = tmp_path / "my run" / "last-good"
    assert f"the state of step 1 is kept, and its weights are in {folder}: continue from it with lower rates" in said
    assert said.endswith("--continue-with --set optimizer.encoder_lr=7e-05 --set optimizer.head_lr=7e-05")
    kept = load_file(folder / "model.safetensors")
    assert all(torch.equal(kept[name], good[name]) for name in kept)
    state = torch.load(tmp_path / "my run" / "state" / "state.pt", weights_only=True)
    assert (state["step"], all(value.isfinite().all() for value in state["model"].values())) == (1, True)
    assert not (tmp_path / "my run" / "model.safetensors").exists()
    again = open_small(shards, tmp_path / "again", init=str(folder), text=TEXT)
    assert all(torch.equal(value, good[name]) for name, value in again.model.state_dict().items())


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("run", 'train on from them with lower rates: in [train] of the experiment init="{out}/last-good", {rates}'),
        (
            "demo",
            (
                "train on from them with lower rates: copy {demo}/experiment.toml to another name beside it, and igvg "
                'run the copy, with these in its [train]: init="{out}/last-good", {rates}'
            ),
        ),
        ("ablate", "begin again with lower rates for all variants, by the same command with --set {sets}"),
    ],
)
def test_every_command_that_trains_gives_the_advice_that_can_be_followed_with_it(
    tmp_path: Path, command: TrainingCommand, advice: str
) -> None:
    out = tmp_path / "demo" / "runs" / "train-tiny"
    shards = write_shards(tmp_path / "drawn")
    training = open_small(shards, out, max_steps=40, epochs=40, text=TEXT)
    training.command = command
    rates = ["optimizer.encoder_lr=7e-05", "optimizer.head_lr=7e-05"]
    values = {"out": out, "demo": tmp_path / "demo", "rates": ", ".join(rates), "sets": " --set ".join(rates)}
    unsaved = diverge(training)
    assert "no finite state was saved before: begin again with lower rates" in unsaved
    assert unsaved.endswith(
        advice.partition("lower rates")[2].format(**values).replace(f'init="{out}/last-good", ', "")
    )
    training = open_small(shards, out, max_steps=40, epochs=40, text=TEXT)
    training.command = command
    save_state(training)
    assert diverge(training).endswith(f"its weights are in {out}/last-good: {advice.format(**values)}")


def test_a_saved_state_whose_outputs_are_not_finite_is_not_recommended(tmp_path: Path) -> None:
    training = open_small(write_shards(tmp_path / "drawn"), tmp_path / "run", max_steps=40, epochs=40, text=TEXT)
    for weights in training.model.parameters():
        weights.data.mul_(1e25)
    # Nothing was tried on them before.
    save_state(training)
    assert "no finite state was saved before: begin again with lower rates: --force" in diverge(training)
    assert not (tmp_path / "run" / "last-good").exists()


def test_weights_that_are_finite_and_give_no_finite_outputs_never_replace_a_saved_state(tmp_path: Path) -> None:
    training = open_small(write_shards(tmp_path / "drawn"), tmp_path / "run")
    save_state(training)
    before = (tmp_path / "run" / "state" / "state.pt").read_bytes()
    training.last_micro_batch = batch = next(iter(open_batches(training)))
    train_step(training, batch)
    for weights in training.model.parameters():
        weights.data.mul_(1e25)
    with pytest.raises(DivergenceError, match="weights or outputs are not finite"):
        save_state(training)
    assert (tmp_path / "run" / "state" / "state.pt").read_bytes() == before


def test_weights_that_are_not_finite_never_replace_a_saved_state(tmp_path: Path) -> None:
    training = open_small(write_shards(tmp_path / "drawn"), tmp_path / "run")
    save_state(training)
    before = (tmp_path / "run" / "state" / "state.pt").read_bytes()
    next(training.model.parameters()).data.fill_(float("nan"))
    with pytest.raises(DivergenceError, match="weights or outputs are not finite"):
        save_state(training)
    assert (tmp_path / "run" / "state" / "state.pt").read_bytes() == before


def test_the_command_ends_in_one_line_whose_advice_works(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "drawn", references=REFERENCES["only-empty"])
    settings = (*SMALL_NETWORK, 'splits=["val"]', "max_steps=4", "log_steps=1")
    sets = [word for setting in settings for word in ("--set", setting)]
    words = ["train", "--shards", str(shards), "--out", str(tmp_path / "run"), "--preset", "tiny", *sets]
    rates = ["--set", "optimizer.encoder_lr=1e30", "--set", "optimizer.head_lr=1e30"]
    error = only_error(igvg(*words, *rates))
    assert "training has diverged" in error
    assert not (tmp_path / "run" / "model.safetensors").exists()
    for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    advice = shlex.split(error.partition("lower rates: ")[2])
    assert advice[0] == "--force"
    # The advised rates are a tenth of those that failed; these are still far too high.
    assert advice[2] == "optimizer.encoder_lr=1e+29"
    advised = [word.replace("1e+29", "1e-4") for word in advice]
    result = igvg(*words, *advised)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("log_steps", [1, 1000])
def test_a_divergence_in_the_very_last_step_leaves_no_checkpoint_also_without_a_validation_split(
    tmp_path: Path, log_steps: int
) -> None:
    words = {"validation_split": "none", "max_steps": 1, "log_steps": log_steps, "text": TEXT}
    training = open_small(write_shards(tmp_path / "drawn"), tmp_path / "run", **words)
    assert "training has diverged (after step 1)" in diverge(training)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert not (tmp_path / "run" / "state").exists()
