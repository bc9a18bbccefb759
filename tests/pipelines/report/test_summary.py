"""The numbers of a summary are those of `igvg score` and `igvg compare`, and its page is readable everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config.settings import PostprocessSettings, ReportSettings, ScoreSettings
from pipelines.evaluation.evaluator import evaluate_split
from pipelines.evaluation.sweep import evaluate_grid
from pipelines.prediction.raw_output import MASK_FLOOR
from pipelines.report.learning_section import read_training_log
from pipelines.report.page import render_page
from pipelines.report.summary import PredictionSet, Summary, build_summary
from pipelines.report.threshold_section import ThresholdCurve, threshold_grid
from pipelines.stages import compare, predict, report, score
from shards.reader import ShardReader
from tests.pipelines.report.test_learning_section import write_log
from tests.support.browser import launch_browser, list_low_contrast, list_unnamed_controls, needs_chromium, open_tab
from tests.support.drawn_outputs import draw_outputs, write_outputs
from tests.support.drawn_shards import fill, predict_truth, write_lines, write_shards

VAL = ScoreSettings(split="val", bootstrap=100)
NO_CURVE = "a.jsonl has no raw outputs beside it"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 40 expressions, raw outputs about them, and two prediction files, the second one worse."""
    folder = tmp_path_factory.mktemp("summary")
    write_shards(folder, images=10)
    lines = predict_truth(images=10)
    write_lines(folder / "a.jsonl", lines)
    for index in range(1, 40, 4):
        lines[index] |= {"mask": fill((0, 0, 4, 2))}
    lines[8] |= {"no_target": False}
    write_lines(folder / "b.jsonl", lines)
    with ShardReader(folder / "shards", "val") as reader:
        write_outputs(folder / "raw", draw_outputs(list(reader.records())))
    return folder


def make_set(folder: Path, name: str, *, curve: bool = False) -> PredictionSet:
    outcomes = evaluate_split(folder / name, folder / "shards", "val")
    if not curve:
        return PredictionSet(name=name, outcomes=outcomes, curve=NO_CURVE)
    grid = threshold_grid(PostprocessSettings(), MASK_FLOOR)
    report = evaluate_grid(folder / "raw", folder / "shards", "val", grid)
    return PredictionSet(name=name, outcomes=outcomes, curve=ThresholdCurve(report=report, used=0.7))


@pytest.fixture(scope="module")
def single(folder: Path) -> Summary:
    return build_summary([make_set(folder, "b.jsonl", curve=True)], VAL, read_training_log(write_log(folder / "log")))


@pytest.fixture(scope="module")
def double(folder: Path) -> Summary:
    return build_summary([make_set(folder, "a.jsonl"), make_set(folder, "b.jsonl", curve=True)], VAL)


def write_page(file: Path, summary: Summary) -> Path:
    """The page of a report that has a summary and no gallery."""
    file.write_text(render_page(summary, title="Summary", sets=[]), encoding="utf-8")
    return file


def read_table(summary: Summary, key: str) -> dict[str, tuple[str, ...]]:
    (section,) = (section for section in summary.sections if section.key == key)
    assert section.table
    return {row.label: row.cells for row in section.table.rows}


def test_all_metrics_are_those_of_igvg_score(folder: Path, single: Summary) -> None:
    document = score.run(folder / "b.jsonl", folder / "shards", VAL).report.to_json()
    assert read_table(single, "scores") == {
        name: (f"{value:.2f}", "{:.2f} to {:.2f}".format(*document["intervals"][name]))
        for name, value in document["metrics"].items()
    }
    assert {headline.metric: headline.values[0][1] for headline in single.headlines} == {
        name: f"{document['metrics'][name]:.2f}" for name in ("gIoU", "cIoU", "F1score", "N-acc", "T-acc")
    }


def test_groups_are_those_of_igvg_score(folder: Path, single: Summary) -> None:
    breakdown = score.run(folder / "b.jsonl", folder / "shards", VAL).report.breakdown
    rows = read_table(single, "breakdown")
    assert len(rows) == sum(map(len, breakdown.values()))
    part = breakdown["kind"]["single"]
    scores = ("–" if value is None else f"{value:.2f}" for value in part["metrics"].values())
    assert rows["one target"] == (str(part["expressions"]), *scores)


def test_the_split_is_told_by_kind_of_expression(single: Summary) -> None:
    (figure,) = (figure for figure in single.sections[0].figures if figure.title == "The split")
    assert [(row.label, *row.cells) for row in figure.values.rows] == [
        ("no target", "10", "25.0\xa0%"), ("one target", "20", "50.0\xa0%"), ("several targets", "10", "25.0\xa0%"),
    ]  # fmt: skip
    assert single.composition
    assert single.composition.expressions == "40"
    assert list(single.composition.kinds) == [(row.label, *row.cells) for row in figure.values.rows]


def test_intervals_are_mentioned_where_there_are_any(single: Summary, tmp_path: Path) -> None:
    assert "intervals" in single.sections[0].lead
    # A bootstrap over a single image has none.
    write_shards(tmp_path, images=1)
    write_lines(tmp_path / "a.jsonl", predict_truth(images=1))
    assert "intervals" not in build_summary([make_set(tmp_path, "a.jsonl")], VAL).sections[0].lead


def test_no_two_headings_of_a_section_are_the_same(double: Summary) -> None:
    for section in double.sections:
        titles = [section.title, *(figure.title for figure in section.figures)]
        assert len({*titles}) == len(titles)


def test_two_sets_have_the_differences_of_igvg_compare(folder: Path, double: Summary) -> None:
    document = compare.run(folder / "a.jsonl", folder / "b.jsonl", folder / "shards", VAL).report.to_json()
    (section,) = (section for section in double.sections if section.key == "differences")
    assert {row.label: row.cells for row in section.figures[0].values.rows} == {
        name: (f"{value:+.2f}", "{:.2f} to {:.2f}".format(*document["intervals"][name]))
        for name, value in document["differences"].items()
    }
    assert section.table
    assert [row.expression for row in section.table.rows] == [row["id"] for row in document["differing"]]
    first = [document["a"]["metrics"]["gIoU"], document["b"]["metrics"]["gIoU"]]
    assert [value for _, value, _ in double.headlines[0].values] == [f"{value:.2f}" for value in first]


def test_a_point_of_a_threshold_curve_is_the_score_under_that_threshold(folder: Path, single: Summary) -> None:
    (section,) = (section for section in single.sections if section.key == "thresholds")
    (figure,) = (figure for figure in section.figures if figure.title == "gIoU")
    settings = PostprocessSettings(score_threshold=0.4)
    predict.run_on_raw(settings, folder / "raw", folder / "predicted")
    expected = score.run(folder / "predicted", folder / "shards", VAL).report.metrics["gIoU"]
    assert {row.label: row.cells for row in figure.values.rows}["0.4"] == (f"{expected:.2f}",)


def test_thresholds_whose_masks_are_not_kept_are_left_out() -> None:
    base = PostprocessSettings(score_threshold=0.45)
    values = [setting.score_threshold for setting in threshold_grid(base, 0.25).settings]
    assert values[:3] == [0.3, 0.4, 0.45]
    every = threshold_grid(PostprocessSettings(mask_source="global"), 0.25).settings
    assert every[0].score_threshold == 0.1


def test_without_raw_outputs_the_page_says_why_there_is_no_curve(double: Summary) -> None:
    (section,) = (section for section in double.sections if section.key == "thresholds")
    assert section.notes == (f"A: no curve, because {NO_CURVE}.",)
    assert section.figures


def test_a_run_alone_has_learning_curves_alone(tmp_path: Path) -> None:
    summary = build_summary([], VAL, read_training_log(write_log(tmp_path / "log.jsonl")))
    assert [section.key for section in summary.sections] == ["training"]
    assert summary.headlines == ()


def test_the_charts_of_a_page_take_less_than_900_kilobytes(single: Summary, double: Summary) -> None:
    for summary in (single, double):
        figures = [figure for section in summary.sections for figure in section.figures]
        assert sum(len(figure.svg.encode()) for figure in figures) < 900_000


@needs_chromium
def test_an_expression_that_differs_most_leads_to_the_gallery(folder: Path, tmp_path: Path) -> None:
    settings = ReportSettings(split="val", bootstrap=10)
    report.run([folder / "a.jsonl", folder / "b.jsonl"], folder / "shards", settings, tmp_path / "report", workers=0)
    with launch_browser() as browser, open_tab(browser, tmp_path / "report" / "index.html") as tab:
        link = tab.page.locator(".summary-section-differences a").first
        name = link.get_attribute("data-expression")
        assert name
        link.click()
        assert name in tab.page.locator("dialog[open]").inner_text()


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_is_readable_on_phones_and_in_the_dark(
    folder: Path, double: Summary, tmp_path: Path, dark: bool, width: int
) -> None:
    file = write_page(tmp_path / "page.html", double)
    with launch_browser() as browser, open_tab(browser, file, width=width, dark=dark) as tab:
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        for summary in tab.page.locator("details:not([open]) > summary").all()[::-1]:
            summary.click()
        assert list_low_contrast(tab.page) == []
        assert list_unnamed_controls(tab.page) == []
        assert tab.page.locator(".summary-chart[aria-label]").count() == tab.page.locator("svg").count() > 5
        for name, letter in (("a.jsonl", "A"), ("b.jsonl", "B")):
            metrics = score.run(folder / name, folder / "shards", VAL).report.metrics
            for metric in ("gIoU", "cIoU", "F1score", "N-acc", "T-acc"):
                shown = tab.page.locator(f"[data-metric='{metric}'][data-set={letter}]").inner_text()
                assert shown == f"{metrics[metric]:.2f}"


@needs_chromium
def test_markup_in_names_and_texts_is_shown_as_text(folder: Path, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)><script>document.title = 'run'</script>"
    sets = [make_set(folder, "a.jsonl"), make_set(folder, "b.jsonl")]
    named = [PredictionSet(name=name, outcomes=each.outcomes, curve=name) for each in sets]
    file = write_page(tmp_path / "page.html", build_summary(named, VAL))
    with launch_browser() as browser, open_tab(browser, file) as tab:
        assert tab.page.title() == "Summary"
        assert name in tab.page.locator(".summary-sets").inner_text()
