"""`igvg demo` at a small size: drawn, prepared, trained, predicted, scored and compared."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pipelines.stages.inputs import digest_checkpoint
from tests.support.pipeline_runs import igvg, only_error, snapshot

SIZE = ("--images", "8", "--held-out", "1", "--max-steps", "1", "--format", "json")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished demo, and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    result = igvg("demo", "--out", os.path.relpath(out), *SIZE)
    assert result.returncode == 0, result.stderr
    return out, result.stdout


def test_three_benchmarks_are_scored_beside_baselines_that_need_no_training(demo: tuple[Path, str]) -> None:
    document = json.loads(demo[1])
    assert list(document) == ["grefcoco/val", "ref-zom/test", "rrefcoco/val"]
    for scores in document.values():
        assert list(scores) == ["start", "after training", "always empty", "everything"]
    always_empty, everything = (document["grefcoco/val"][name]["metrics"] for name in ("always empty", "everything"))
    assert (always_empty["N-acc"], always_empty["T-acc"]) == (100.0, 0.0)
    assert (everything["N-acc"], everything["T-acc"]) == (0.0, 100.0)


def test_the_last_line_is_the_page_of_a_report(demo: tuple[Path, str]) -> None:
    again = igvg("demo", "--out", demo[0], *SIZE[:-2])
    assert again.returncode == 0, again.stderr
    page = Path(again.stdout.splitlines()[-1])
    assert page.parent.parent == demo[0]
    assert "after training" in again.stdout
    text = page.read_text(encoding="utf-8")
    assert all(heading in text for heading in ("Scores", "Differences", "Score threshold", "Training", "Expressions"))
    document = json.loads(demo[1])["grefcoco/val"]
    for name in ("start", "after training"):
        assert f">{document[name]['metrics']['gIoU']:.2f}<" in text
        assert f"<dd>{name}</dd>" in text


def test_held_out_images_are_none_of_those_trained_on(demo: tuple[Path, str]) -> None:
    (file,) = demo[0].glob("shapes-8-1-*/grefcoco/grefs(unc).json")
    records = json.loads(file.read_text())
    train = {record["image_id"] for record in records if record["split"] == "train"}
    held_out = {record["image_id"] for record in records if record["split"] != "train"}
    assert train
    assert held_out
    assert not train & held_out


def test_a_finished_demo_is_repeated_without_work(demo: tuple[Path, str]) -> None:
    before = snapshot(demo[0])
    again = igvg("demo", "--out", demo[0], *SIZE)
    assert again.returncode == 0, again.stderr
    assert again.stdout == demo[1]
    assert snapshot(demo[0]) == before


def test_a_demo_of_another_size_works_beside_the_one_before(demo: tuple[Path, str], tmp_path: Path) -> None:
    out = shutil.copytree(demo[0], tmp_path / "demo")
    before = snapshot(out)
    other = igvg("demo", "--out", out, "--pictures", "9", "--held-out", "2", *SIZE[4:])
    assert other.returncode == 0, other.stderr
    documents = [json.loads(text)["grefcoco/val"] for text in (other.stdout, demo[1])]
    assert documents[0].keys() == documents[1].keys()
    assert documents[0]["start"]["expressions"] > documents[1]["start"]["expressions"]
    after = snapshot(out)
    changed = {name for name in before if after.get(name) != before[name]}
    assert all(name == "experiment.toml" or name.startswith("examples/images/") for name in changed), changed


def test_an_experiment_file_of_the_user_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_bytes(b"# \xfcbung\n")
    error = only_error(igvg("demo", "--out", tmp_path, *SIZE))
    assert f"{tmp_path / 'experiment.toml'} was not written by igvg demo" in error
    assert [file.name for file in tmp_path.iterdir()] == ["experiment.toml"]
    assert (tmp_path / "experiment.toml").read_bytes() == b"# \xfcbung\n"


def test_training_starts_from_the_shipped_network_and_from_scratch_from_none(
    demo: tuple[Path, str], tmp_path: Path
) -> None:
    assert igvg("demo", "--out", tmp_path / "demo", "--from-scratch", *SIZE).returncode == 0
    inputs = []
    for folder in (demo[0], tmp_path / "demo" / "from-scratch"):
        (record,) = (folder / "runs").glob("train-*/artifact.json")
        inputs.append(json.loads(record.read_text())["inputs"])
    assert inputs[0]["init"] == digest_checkpoint(Path("shapes"))
    assert "init" not in inputs[1]
