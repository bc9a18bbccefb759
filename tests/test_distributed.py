"""Two processes are two, and do together what one does alone."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support import distributed_steps
from tests.support.drawn_shards import write_noise, write_shards
from tests.support.launched_processes import environment, torchrun
from tests.support.pipeline_runs import SMALL_NETWORK, command, igvg, only_error, run_here
from tests.support.remote_artifacts import write_artifact
from tests.support.shard_server import serve_folder

REFERENCES = ((), (0,), (0, 1))
# 291 expressions: three chunks, the last one shorter, an odd number in all.
IMAGES = 97


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def read_artifact(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("shards") / "noise", IMAGES, REFERENCES)


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """What two processes train, and what they print."""
    out = tmp_path_factory.mktemp("trained") / "run"
    result = torchrun("-m", "igvg_cli", *train_words(shards), "--out", out)
    assert result.returncode == 0, result.stderr
    return out, result


def train_words(shards: Path) -> list[str]:
    settings = (
        *SMALL_NETWORK, 'splits=["val"]', "max_steps=3", "log_steps=1", "validation_limit=0",
        "postprocess.score_threshold=0.1", "postprocess.existence_weighting=false",
    )  # fmt: skip
    sets = [word for setting in settings for word in ("--set", setting)]
    return ["train", "--shards", str(shards), "--preset", "tiny", *sets]


@pytest.fixture(scope="module")
def predicted(
    shards: Path, trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """What one process predicts, and what two do."""
    home = tmp_path_factory.mktemp("predicted")
    words = predict_words(trained[0], shards)
    run_here(*words, "--out", home / "one")
    together = torchrun("-m", "igvg_cli", *words, "--out", home / "two")
    assert together.returncode == 0, together.stderr
    return home / "one", home / "two"


def predict_words(checkpoint: Path, shards: Path) -> list[str]:
    sets = ["--set", "workers=0", "--set", "batch_size=32"]
    # So low that answers are neither all empty nor all full.
    sets += ["--set", "postprocess.score_threshold=0.1", "--set", "postprocess.existence_weighting=false"]
    return ["predict", "--checkpoint", str(checkpoint), "--shards", str(shards), "--split", "val", *sets]


def test_two_processes_train_together_and_say_that_they_are_two(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, _ = trained
    assert read_artifact(out)["counts"]["processes"] == 2
    lines = read_lines(out / "log.jsonl")
    assert lines[0]["start"]["processes"] == 2
    assert [line["step"] for line in lines if "losses" in line] == [1, 2, 3]


def test_only_one_process_prints(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, result = trained
    assert result.stdout == f"{out}: trained 3 steps on {3 * IMAGES} expressions\n"
    assert not [line for line in result.stderr.splitlines() if "Error" in line or "Warning" in line]


# With this epsilon an update of Adam is nearly proportional to the gradient, so that sizes count and not only signs.
STEPS = (
    "batch_size=8", "micro_batches=2", "frozen_batchnorm=true", "optimizer.eps=1", "optimizer.encoder_lr=0.1",
    "optimizer.head_lr=0.1",
)  # fmt: skip


def train_steps(shards: Path, out: Path, last: int, *, processes: int) -> tuple[dict[str, torch.Tensor], Any]:
    """Weights after step `last`, and what `tests.support.distributed_steps` saw in each step."""
    if processes > 1:
        result = torchrun("-m", "tests.support.distributed_steps", shards, out, str(last), *STEPS, processes=processes)
        assert result.returncode == 0, result.stderr
    else:
        distributed_steps.train_steps(shards, out, last, STEPS)
    return load_file(out / f"weights-{last}.safetensors"), json.loads((out / f"steps-{last}.json").read_text())


def assert_same_weights(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, weights in one.items():
        torch.testing.assert_close(weights, two[name], atol=1e-6, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_a_step_of_two_processes_is_one_of_one_and_either_continues_what_the_other_began(
    shards: Path, tmp_path: Path
) -> None:
    second, seen = train_steps(shards, tmp_path / "one", 2, processes=1)
    assert [len(step) for step in seen["boxes"]] == [1, 1]
    begun, seen = train_steps(shards, tmp_path / "two", 1, processes=2)
    boxes = seen["boxes"]
    # Two shares of the data, and not equal ones: else a mean over each would do.
    assert len(boxes[0]) == 2
    assert boxes[0][0] != boxes[0][1]
    apart, validated = seen["statistics"]
    assert apart[0] != apart[1]
    # What is scored is what the first process saves.
    assert validated == [apart[0], apart[0]]
    first = load_file(tmp_path / "one" / "weights-1.safetensors")
    assert_same_weights(first, begun)
    moved = max((second[name] - first[name]).abs().max().item() for name in first if "num_batches" not in name)
    assert moved > 1e-3
    continued, _ = train_steps(shards, tmp_path / "two", 2, processes=1)
    assert_same_weights(second, continued)


def test_two_processes_predict_every_expression_once_in_more_chunks_than_there_are_processes(
    predicted: tuple[Path, Path],
) -> None:
    one, two = predicted
    assert [read_artifact(folder)["counts"]["processes"] for folder in predicted] == [1, 2]
    assert len(list((two / "raw").glob("chunk-*.npz"))) == 3
    predictions = read_lines(two / "predictions.jsonl")
    assert len({prediction["id"] for prediction in predictions}) == len(predictions) == 3 * IMAGES
    assert len({json.dumps([line["boxes"], line["mask"]]) for line in predictions}) > 1
    names = sorted(file.relative_to(one) for file in one.rglob("*") if file.is_file())
    assert names == sorted(file.relative_to(two) for file in two.rglob("*") if file.is_file())
    for name in names:
        if name.name != "artifact.json":
            assert (one / name).read_bytes() == (two / name).read_bytes(), name


# A thread that comes back from torch while Python is finalized aborts the process.
BESIDE_A_THREAD = """
import threading
import torch
from igvg_cli.app import main

def multiply():
    while True:
        torch.ones(700, 700).matmul(torch.ones(700, 700))

threading.Thread(target=multiply, daemon=True).start()
main()
"""


@pytest.mark.parametrize("command", ["train", "predict"])
def test_threads_of_torch_do_not_abort_a_command_of_several_processes_whose_work_is_done(
    command: str, shards: Path, trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    program = tmp_path / "beside_a_thread.py"
    program.write_text(BESIDE_A_THREAD, encoding="utf-8")
    words = predict_words(trained[0], shards) if command == "predict" else train_words(shards)
    result = torchrun(program, *words, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{tmp_path / 'out'}: ")


def test_predictions_of_one_and_of_two_processes_are_the_same_artifact(
    predicted: tuple[Path, Path], trained: tuple[Path, subprocess.CompletedProcess[str]], shards: Path
) -> None:
    one, two = predicted
    assert read_artifact(one)["fingerprint"] == read_artifact(two)["fingerprint"]
    again = igvg(*predict_words(trained[0], shards), "--out", two)
    assert again.returncode == 0, again.stderr
    assert "is up to date" in again.stderr


def test_the_validation_of_two_processes_scores_the_checkpoint_that_they_leave(
    predicted: tuple[Path, Path], trained: tuple[Path, subprocess.CompletedProcess[str]], shards: Path
) -> None:
    (logged,) = [line["scores"]["shards"] for line in read_lines(trained[0] / "log.jsonl") if "scores" in line]
    scored = igvg("score", predicted[0], "--shards", shards, "--split", "val", "--format", "json")
    metrics = json.loads(scored.stdout)["metrics"]
    assert 0 < metrics["gIoU"] < 100
    assert logged == pytest.approx(metrics, abs=1e-6)


def test_one_expression_and_two_processes_of_slurm_give_one_prediction(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    shards = write_shards(tmp_path / "few", images=1, references=((0,),))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    words = command(*predict_words(trained[0], shards), "--out", tmp_path / "out")
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "MASTER_PORT": port}
    tasks = [
        subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(SLURM_PROCID=rank, SLURM_LOCALID=rank, **step),
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    ended = [(*task.communicate(timeout=240), task.returncode) for task in tasks]
    assert [returncode for *_, returncode in ended] == [0, 0], ended
    counts = read_artifact(tmp_path / "out")["counts"]
    assert (counts["expressions"], counts["processes"]) == (1, 2)
    assert [len(stdout.splitlines()) for stdout, *_ in ended] == [1, 0]


def test_an_error_that_one_process_meets_is_printed_once_and_ends_both(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    shards = write_shards(tmp_path / "corrupted", images=60, references=REFERENCES)
    # In the second chunk, which is the second process's.
    corrupt_record(shards / "val", 55)
    result = torchrun("-m", "igvg_cli", *predict_words(trained[0], shards), "--out", tmp_path / "out")
    assert result.returncode != 0
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert len([line for line in errors if "55.png" in line or "val-000000.tar" in line]) == 1, result.stderr
    assert all("another of the 2 processes ended" in line for line in errors[1:])
    assert not (tmp_path / "out" / "artifact.json").exists()


def corrupt_record(split: Path, position: int) -> None:
    """Change bytes of an image inside its shard."""
    index = json.loads((split / "index.json").read_text())
    row = dict(zip(index["columns"], index["rows"][position], strict=True))
    with (split / index["shards"][0]["name"]).open("r+b") as stream:
        stream.seek(row["picture_offset"] + row["picture_size"] // 2)
        stream.write(b"\xff" * 8)


@pytest.mark.parametrize(
    "arguments",
    [["predict", "--split", "val", "--checkpoint", "checkpoint"], ["train"]],
    ids=["predict", "train"],
)
def test_processes_that_cannot_meet_stop_before_they_work_alone(
    arguments: Sequence[str], trained: tuple[Path, subprocess.CompletedProcess[str]], shards: Path, tmp_path: Path
) -> None:
    words = [str(trained[0]) if word == "checkpoint" else word for word in arguments]
    result = igvg(*words, "--shards", shards, "--out", tmp_path / "out", WORLD_SIZE="2")
    error = only_error(result)
    assert "WORLD_SIZE is 2 and RANK is not set" in error
    assert "torchrun --nproc_per_node" in error
    assert not (tmp_path / "out").exists()


def test_work_that_processes_do_not_share_is_refused_to_several(predicted: tuple[Path, Path], tmp_path: Path) -> None:
    two = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    result = igvg("predict", "--from", predicted[0], "--out", tmp_path / "again", **two)
    assert "igvg predict --from works in one process, but 2 were started" in only_error(result)
    assert not (tmp_path / "again").exists()


def test_processes_to_which_a_server_gives_different_sets_do_not_train_together(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "served")
    write_artifact(folder)
    document = json.loads((folder / "artifact.json").read_text(encoding="utf-8")) | {"fingerprint": "e" * 64}
    del document["checksum"]
    (folder / "others").mkdir()
    (folder / "others" / "artifact.json").write_text(json.dumps(document), encoding="utf-8")
    with serve_folder(folder) as server:
        server.failures["artifact.json"] = ["other"]
        words = [
            "train",
            "--shards",
            server.url,
            "--out",
            tmp_path / "run",
            "--preset",
            "tiny",
            "--set",
            'splits=["val"]',
        ]
        result = torchrun("-m", "igvg_cli", *words, IGVG_CACHE=str(tmp_path / "cache"))
    assert result.returncode != 0
    assert "the processes see different files (the fingerprint of inputs and settings: " in result.stderr
    assert not list((tmp_path / "run").glob("*"))
