"""`igvg train --continue-with`: a training goes on with other settings, and its record says so."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from igvg_cli.app import build_app
from pipelines.config.settings import OptimizerSettings, TrainSettings
from pipelines.stages import train
from pipelines.training.state_files import read_state
from shards.errors import ArtifactError, IGVGError, SettingsError
from shards.progress import set_sink
from tests.support.drawn_shards import write_shards
from tests.support.pipeline_runs import SMALL_NETWORK
from tests.support.small_training import MODEL, small_settings, write_set

STOPPED = 4
RATES = OptimizerSettings(encoder_lr=1e-5, head_lr=1e-5, schedule="step", amsgrad=False)


class StoppedError(Exception):
    """As if the process had been killed between two steps."""


def choose(**changes: Any) -> TrainSettings:
    return small_settings(**({"max_steps": 7, "epochs": 5, "checkpoint_minutes": 0.0} | changes))


def stop_in(step: int) -> Callable[[int, int, str], None]:
    def report(done: int, total: int, remark: str) -> None:
        if done == step + 1:
            raise StoppedError

    return report


def read_record(folder: Path, name: str = "artifact.json") -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / name).read_text())
    return record


def read_rates(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["learning_rates"]["head"] for line in lines if "losses" in line]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("continued"))


@pytest.fixture
def stopped(shards: Path, tmp_path: Path) -> Path:
    """The folder of a training that ended in its fifth step."""
    with pytest.raises(StoppedError), set_sink(progress=stop_in(STOPPED)):
        train.run(choose(), [shards], tmp_path / "run")
    return tmp_path / "run"


def test_from_the_saved_step_on_the_new_settings_count_and_the_record_says_since_when(
    shards: Path, stopped: Path
) -> None:
    before = read_rates(stopped)[:STOPPED]
    changed = choose(optimizer=RATES, max_steps=6)
    with pytest.raises(StoppedError), set_sink(progress=stop_in(STOPPED)):
        train.run(changed, [shards], stopped, continue_with=True)
    # Stopped again: from now on these are its settings.
    with pytest.raises(ArtifactError, match="unfinished work of other inputs or settings: "):
        train.run(choose(), [shards], stopped)
    result = train.run(changed, [shards], stopped, continue_with=True)
    assert not result.cached
    assert read_rates(stopped) == [*before, 1e-5, 1e-5]
    record = read_record(stopped)
    assert record["fingerprint"] == train.describe(changed, [shards], stopped).fingerprint
    (change,) = record["counts"]["changes"]
    assert change["step"] == STOPPED
    assert {"max_steps 7 → 6", "optimizer.head_lr 0.0007 → 1e-05"} <= set(change["settings"])
    for continue_with in (True, False):
        assert train.run(changed, [shards], stopped, continue_with=continue_with).cached
    start = [json.loads(line) for line in (stopped / "log.jsonl").read_text().splitlines() if '"start"' in line]
    assert "max_steps 7 → 6" in start[1]["start"]["changes"]


def test_without_a_change_it_continues_as_if_undisturbed(shards: Path, stopped: Path, tmp_path: Path) -> None:
    train.run(choose(), [shards], stopped, continue_with=True)
    assert "changes" not in read_record(stopped)["counts"]
    train.run(choose(), [shards], tmp_path / "undisturbed")
    one, two = (load_file(folder / "model.safetensors") for folder in (stopped, tmp_path / "undisturbed"))
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed 6666 → 1"),
        ({"batch_size": 6}, "batch_size 4 → 6"),
        ({"optimizer": OptimizerSettings(amsgrad=True)}, "optimizer.amsgrad False → True"),
        ({"validation_limit": 1}, "validation_limit 400 → 1"),
        ({"model": MODEL.__class__()}, "model.image_size 32 → 320"),
    ],
)
def test_what_is_trained_already_depends_on_cannot_be_changed_and_is_named(
    shards: Path, stopped: Path, changes: dict[str, Any], words: str
) -> None:
    before = (stopped / "unfinished.json").read_bytes()
    with pytest.raises(ArtifactError, match="cannot be continued with other values of ") as error:
        train.run(choose(**changes), [shards], stopped, continue_with=True)
    assert words in str(error.value)
    assert "--continue-with can change epochs, " in str(error.value)
    assert (stopped / "unfinished.json").read_bytes() == before


def test_other_shards_and_folders_without_a_training_are_refused(shards: Path, stopped: Path, tmp_path: Path) -> None:
    other = write_shards(tmp_path / "other")
    cases: list[tuple[Path, Path, str]] = [
        (other, stopped, "cannot be continued with other values of input"),
        (shards, tmp_path / "none", "none holds no training to continue; leave --continue-with out"),
    ]
    for given, out, words in cases:
        with pytest.raises(IGVGError, match=words):
            train.run(choose(), [given], out, continue_with=True)


def test_an_end_before_the_saved_step_is_refused_and_the_state_stays(shards: Path, stopped: Path) -> None:
    with pytest.raises(SettingsError, match="is of step 4, and with these settings the training ends at step 3"):
        train.run(choose(max_steps=3), [shards], stopped, continue_with=True)
    state = read_state(stopped / "state")
    assert state is not None
    assert state["step"] == STOPPED


def test_a_finished_training_goes_on_for_more_epochs_if_its_state_was_kept(shards: Path, tmp_path: Path) -> None:
    words: dict[str, Any] = {"optimizer": RATES, "keep_last_state": True}
    run, whole = tmp_path / "run", tmp_path / "whole"
    train.run(choose(max_steps=4, **words), [shards], run)
    train.run(choose(max_steps=7, **words), [shards], run, continue_with=True)
    train.run(choose(max_steps=7, **words), [shards], whole)
    one, two = (read_state(folder / "state") for folder in (run, whole))
    assert one is not None
    assert two is not None
    assert [name for name in one["model"] if not torch.equal(one["model"][name], two["model"][name])] == []
    assert read_record(run)["counts"]["changes"] == [{"step": 4, "settings": ["max_steps 4 → 7"]}]


def test_a_finished_training_without_its_state_says_how_to_train_on(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train.run(choose(max_steps=2), [shards], run)
    with pytest.raises(ArtifactError, match=f"its last state was not kept .*: train on from its weights, --init {run}"):
        train.run(choose(max_steps=7), [shards], run, continue_with=True)
    assert (run / "artifact.json").exists()


def test_the_advice_after_a_divergence_is_a_command_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first three steps, an epoch, are sound and saved; then the rates are a hundred million.
    settings = (
        *SMALL_NETWORK, 'splits=["val"]', "max_steps=9", "epochs=9", "log_steps=1", "validation_limit=2",
        "optimizer.schedule=step", "optimizer.warmup_epochs=1", "optimizer.warmup_factor=1e-11",
        "optimizer.encoder_lr=1e8", "optimizer.head_lr=1e8",
    )  # fmt: skip
    out, sets = tmp_path / "my run", [word for setting in settings for word in ("--set", setting)]
    words = ["train", "--shards", str(write_shards(tmp_path / "drawn")), "--out", str(out), "--preset", "tiny", *sets]
    followed = 0
    while not (out / "artifact.json").exists():
        assert followed < 12
        status = build_app()(words, prog_name="igvg", standalone_mode=False)
        if status:
            advice = capsys.readouterr().err.strip().partition("by the same command with ")[2]
            assert advice.startswith("--continue-with --set optimizer.encoder_lr=")
            words += shlex.split(advice)
            followed += 1
    assert followed
    changes = read_record(out)["counts"]["changes"]
    assert [change["step"] for change in changes] == [3] * followed
    assert "optimizer.head_lr 100000000.0 → 10000000.0" in changes[0]["settings"]


def test_the_advice_after_a_divergence_in_an_experiment_works_in_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        "[train]", 'preset="tiny"', f'shards=["{write_shards(tmp_path / "drawn")}"]', *SMALL_NETWORK, 'splits=["val"]',
        "max_steps=9", "epochs=9", "log_steps=1", 'optimizer.schedule="step"', "optimizer.warmup_epochs=1",
        "optimizer.warmup_factor=1e-11",
    ]  # fmt: skip
    advised = ["optimizer.encoder_lr=1e8", "optimizer.head_lr=1e8"]
    file, inits = tmp_path / "my.toml", set()
    for _ in range(12):
        file.write_text("\n".join([f'out = "{tmp_path / "runs"}"', *lines, *advised]))
        if not build_app()(["run", str(file)], prog_name="igvg", standalone_mode=False):
            break
        error = capsys.readouterr().err
        assert "training has diverged" in error
        assert "--" not in error.rpartition("diverged")[2]
        advised = error.strip().partition("lower rates: in [train] of the experiment ")[2].split(", ")
        inits |= {advice for advice in advised if advice.startswith("init=")}
    assert inits
    (record,) = (tmp_path / "runs").glob("train-*/artifact.json")
    assert read_record(record.parent)["options"]["optimizer"]["head_lr"] < 1e8
