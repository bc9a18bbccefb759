"""The stage of reports: what it reads, when it works again, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.config.settings import ReportSettings, ScoreSettings
from pipelines.evaluation.evaluator import evaluate_split
from pipelines.evaluation.score_report import build_report
from pipelines.stages import predict, report
from pipelines.stages.artifact import Stage, read_artifact
from shards.errors import ArtifactError, DataError, SettingsError
from shards.progress import set_sink
from tests.support.drawn_shards import predict_truth, write_lines, write_shards
from tests.support.paths import ROOT
from tests.support.pipeline_runs import snapshot
from tests.support.predicted_folders import SETTINGS, write_predicted
from tests.support.report_data import read_details, read_index

VAL = ReportSettings(split="val", bootstrap=20)
LOG_LINE = '{"step": 20, "epoch": 0.5, "expressions_per_second": 9, "losses": {"total": 3.5}}\n'


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def predicted(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_predicted(tmp_path_factory.mktemp("runs") / "found", shards)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A training that has begun."""
    Stage(name="train", out=tmp_path / "first", inputs={}, options={}).start()
    (tmp_path / "first" / "log.jsonl").write_text(LOG_LINE)
    return tmp_path / "first"


def list_names(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("dataset", ["grefcoco", "refcoco"])
def test_the_mean_iou_of_the_gallery_and_the_page_say_what_the_score_says(tmp_path: Path, dataset: str) -> None:
    references = ((), (0,), (1,), (0, 1)) if dataset == "grefcoco" else ((0,), (1,))
    shards = write_shards(tmp_path / "set", dataset, references=references)
    predicted = write_predicted(tmp_path / "found", shards)
    out = tmp_path / "report"
    assert report.run([predicted], shards, VAL, out).counts == {
        "sets": 1, "expressions": 3 * len(references), "images": 3,
    }  # fmt: skip
    metrics = build_report(evaluate_split(predicted, shards, "val"), ScoreSettings(split="val", bootstrap=0)).metrics
    name = "gIoU" if dataset == "grefcoco" else "mIoU"
    (result,) = read_index(out)["results"]
    score = metrics[name]
    assert score is not None
    assert 0 < score < 100
    assert sum(result["iou"]) / len(result["iou"]) == pytest.approx(score, abs=1e-4)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert re.search(rf'data-metric="{name}"[^>]*>\s*{score:.2f}\s*<', page)


def test_a_report_is_recognized_and_other_inputs_or_settings_are_explained(
    shards: Path, predicted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    assert not report.run([predicted], shards, VAL, out).cached
    before = snapshot(out)
    assert report.run([predicted], shards, VAL, out, workers=0).cached
    assert snapshot(out) == before
    with pytest.raises(ArtifactError, match="holds a finished report of other inputs or settings: limit 0 → 3"):
        report.run([predicted], shards, ReportSettings(split="val", bootstrap=20, limit=3), out)
    # Where the predictions lie is no difference, what they are is one.
    copy = shutil.copytree(predicted, tmp_path / "copy" / "found")
    assert report.run([copy], shards, VAL, out).cached
    other = write_lines(tmp_path / "other.jsonl", predict_truth())
    with pytest.raises(ArtifactError, match=r"input predictions 1 differs.*; choose another --out, or replace it"):
        report.run([other], shards, VAL, out)
    assert snapshot(out) == before
    assert not report.run([other], shards, VAL, out, force=True).cached
    assert read_index(out)["sets"] == [str(other)]
    report.run([predicted], shards, VAL, out, force=True)
    assert read_artifact(out, "report").inputs.keys() == {
        "predictions 1", "raw outputs 1", "shards", "page of igvg",
    }  # fmt: skip


def test_two_runs_of_a_report_write_the_same_bytes(shards: Path, predicted: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        report.run([predicted], shards, VAL, tmp_path / name)
    one, other = (snapshot(tmp_path / name) for name in ("one", "other"))
    assert {name: digest for name, (digest, _) in one.items()} == {name: digest for name, (digest, _) in other.items()}


def test_force_replaces_a_report_alone(shards: Path, predicted: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    report.run([predicted], shards, VAL, out)
    (out / "images" / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"holds images/notes\.txt, which igvg report did not make"):
        report.run([predicted], shards, VAL, out, force=True)
    assert (out / "images" / "notes.txt").read_text() == "mine"
    with pytest.raises(ArtifactError, match="was not made by igvg report"):
        report.run([predicted], shards, VAL, predicted, force=True)


def test_an_error_leaves_nothing_behind(shards: Path, predicted: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(predicted, tmp_path / "found")
    chunk = broken / "raw" / "chunk-000001.npz"
    chunk.write_bytes(bytes(chunk.stat().st_size))
    with pytest.raises(DataError, match=r"chunk-000001\.npz"):
        report.run([broken], shards, VAL, tmp_path / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["found"]


def test_predictions_of_another_program_have_boxes_and_masks_alone(shards: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "other.jsonl", predict_truth())
    report.run([file], shards, VAL, tmp_path / "report")
    assert read_index(tmp_path / "report")["results"][0]["outcome"] == ["correct"] * 12
    assert all(detail["results"][0]["all_points"] is None for detail in read_details(tmp_path / "report"))
    assert "no curve, because there are no raw outputs" in (tmp_path / "report" / "index.html").read_text()


def test_the_file_of_a_folder_of_igvg_predict_stands_for_the_folder(
    shards: Path, predicted: Path, tmp_path: Path
) -> None:
    report.run([predicted / "predictions.jsonl"], shards, VAL, tmp_path / "report")
    assert all(detail["results"][0]["all_points"] for detail in read_details(tmp_path / "report"))


@pytest.mark.parametrize("key", ["boxes", "mask"])
def test_predictions_without_masks_or_without_boxes_are_reported(shards: Path, tmp_path: Path, key: str) -> None:
    lines = [{"id": line["id"], key: line[key]} for line in predict_truth()]
    report.run([write_lines(tmp_path / "other.jsonl", lines)], shards, VAL, tmp_path / "report")
    (result,) = read_index(tmp_path / "report")["results"]
    assert (result["outcome"], result["iou"]) == (["correct"] * 12, [100] * 12)


def test_two_sets_and_a_training_are_reported_together(
    shards: Path, predicted: Path, run_folder: Path, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "other.jsonl", predict_truth())
    result = report.run([run_folder, predicted, file], shards, VAL, tmp_path / "report")
    assert result.counts["sets"] == 2
    assert read_index(tmp_path / "report")["sets"] == [str(predicted), str(file)]
    assert read_artifact(tmp_path / "report").inputs.keys() == {
        "predictions 1", "raw outputs 1", "predictions 2", "log", "shards", "page of igvg",
    }  # fmt: skip


def test_a_page_of_another_igvg_is_not_taken_for_this_one(
    shards: Path, predicted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    report.run([predicted], shards, VAL, out)
    monkeypatch.setattr(report, "digest_page", lambda: "another")
    with pytest.raises(ArtifactError, match="input page of igvg differs; choose another --out, or replace it"):
        report.run([predicted], shards, VAL, out)


def test_names_of_sets_that_are_given_stand_in_for_their_paths(shards: Path, predicted: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "other.jsonl", predict_truth())
    out = tmp_path / "report"
    report.run([predicted, file], shards, VAL, out, names=("start", "after training"))
    assert read_index(out)["sets"] == ["start", "after training"]
    assert str(tmp_path) not in (out / "index.html").read_text(encoding="utf-8")
    with pytest.raises(ArtifactError, match="names"):
        report.run([predicted, file], shards, VAL, out, names=("first", "second"))


@pytest.mark.parametrize("with_shards", [False, True])
def test_a_training_alone_is_reported_without_a_gallery(
    shards: Path, run_folder: Path, tmp_path: Path, with_shards: bool
) -> None:
    settings = VAL if with_shards else ReportSettings()
    logged: list[str] = []
    with set_sink(log=logged.append):
        result = report.run([run_folder], shards if with_shards else None, settings, tmp_path / "report")
    assert any("are not used: there are no predictions" in line for line in logged) == with_shards
    assert result.counts == {"sets": 0, "expressions": 0, "images": 0}
    assert list_names(tmp_path / "report") == ["artifact.json", "index.html"]
    page = (tmp_path / "report" / "index.html").read_text()
    assert "<title>first" in page
    assert 'src="data/' not in page


def test_a_training_that_went_on_is_another_input(run_folder: Path, tmp_path: Path) -> None:
    report.run([run_folder], None, ReportSettings(), tmp_path / "report")
    with (run_folder / "log.jsonl").open("a") as stream:
        stream.write(LOG_LINE.replace("20", "40"))
    with pytest.raises(ArtifactError, match="input log differs"):
        report.run([run_folder], None, ReportSettings(), tmp_path / "report")


def test_warnings_are_logged(shards: Path, predicted: Path, tmp_path: Path) -> None:
    """Boxes in fractions of the image, and raw outputs of other predictions."""
    found = shutil.copytree(predicted, tmp_path / "found")
    lines = [json.loads(line) for line in (found / "predictions.jsonl").read_text().splitlines()]
    for line in lines:
        line["boxes"] = [[0.1, 0.1, 0.9, 0.9] for _ in line["boxes"]]
    write_lines(found / "predictions.jsonl", lines)
    (found / "artifact.json").unlink()
    Stage(name="predict", out=found, inputs={}, options=read_artifact(predicted).options).finish({})
    logged: list[str] = []
    with set_sink(log=logged.append):
        report.run([found], shards, VAL, tmp_path / "report")
    wrong = sum(bool(line["boxes"]) for line in lines)
    assert "look normalized" in logged[0]
    assert logged[1].startswith(f"Warning: {wrong} predictions do not come from the raw outputs beside them")


def test_what_cannot_be_reported_is_refused(shards: Path, predicted: Path, run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    with pytest.raises(SettingsError, match="found 3 sets of predictions and 0 training runs"):
        report.run([predicted] * 3, shards, VAL, out)
    with pytest.raises(SettingsError, match="found 0 sets of predictions and 2 training runs"):
        report.run([run_folder] * 2, None, ReportSettings(), out)
    with pytest.raises(SettingsError, match="give the --shards and --split that were predicted"):
        report.run([predicted], None, ReportSettings(), out)
    with pytest.raises(DataError, match=r"no such file; give a predictions\.jsonl"):
        report.run([tmp_path], shards, VAL, out)
    with pytest.raises(DataError, match="no split 'test'; it holds val"):
        report.run([predicted], shards, ReportSettings(split="test"), out)
    (run_folder / "log.jsonl").unlink()
    with pytest.raises(DataError, match=r"log\.jsonl: no log of a training"):
        report.run([run_folder], None, ReportSettings(), out)
    assert not out.exists()


def test_an_unfinished_prediction_is_refused(shards: Path, predicted: Path, tmp_path: Path) -> None:
    found = tmp_path / "found"
    Stage(name="predict", out=found, inputs={}, options={}).start()
    shutil.copy(predicted / "predictions.jsonl", found)
    with pytest.raises(DataError, match="the prediction is unfinished; finish it"):
        report.run([found], shards, VAL, tmp_path / "report")


def test_predictions_of_another_split_are_refused(shards: Path, predicted: Path, tmp_path: Path) -> None:
    lines = predict_truth()
    for name, given, words in (
        ("missing", lines[:-1], "no prediction for grefcoco/3/3"),
        ("unknown", [*lines, lines[0] | {"id": "grefcoco/9/9"}], "grefcoco/9/9: not in split 'val'"),
        ("twice", [*lines, lines[0]], "grefcoco/1/0 is given twice"),
        ("size", [lines[0] | {"mask": {"size": [12, 8], "counts": "P3"}}, *lines[1:]], "height and width are swapped"),
    ):
        file = write_lines(tmp_path / f"{name}.jsonl", given)
        with pytest.raises(DataError, match=words):
            report.run([predicted, file], shards, VAL, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_no_torch_is_loaded_for_a_report_and_no_library_of_charts_for_a_finished_one(
    shards: Path, predicted: Path, tmp_path: Path
) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom pipelines.stages import report\n"
        "from pipelines.config.settings import ReportSettings\n"
        "predicted, shards, out = map(Path, sys.argv[1:])\n"
        "report.run([predicted], shards, ReportSettings(split='val'), out, workers=0)\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    words = [sys.executable, "-c", code, predicted, shards, tmp_path / "report"]
    loaded = [
        set(subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split())
        for _ in range(2)
    ]
    assert not loaded[0] & {"torch", "transformers", "accelerate"}
    assert {"altair", "jinja2"} <= loaded[0]
    assert not loaded[1] & {"torch", "altair", "vl_convert", "jinja2"}


def test_predictions_from_the_raw_outputs_of_the_other_set_show_their_layers(
    shards: Path, predicted: Path, tmp_path: Path
) -> None:
    lower = dataclasses.replace(SETTINGS, score_threshold=0.15, mask_source="instance")
    predict.run_on_raw(lower, predicted / "raw", tmp_path / "lower")
    sources = [predicted, tmp_path / "lower"]
    assert [source.settings for source in report.open_sources(sources).sets] == [SETTINGS, lower]
    report.run(sources, shards, VAL, tmp_path / "report")
    for detail in read_details(tmp_path / "report"):
        first, second = detail["results"]
        assert first["all_points"] == second["all_points"]
        assert len(second["points"]) == len(second["instance_masks"]) >= len(first["points"])
    # Alone they have none beside them.
    assert report.open_sources(sources[1:]).sets[0].raw is None


def test_settings_of_the_prediction_are_those_of_its_layers(predicted: Path) -> None:
    (source,) = report.open_sources([predicted]).sets
    assert source.settings == SETTINGS
    assert source.raw == predicted / "raw"
