"""The sink of progress and log lines: set for a block, dropped without one."""

from __future__ import annotations

import pytest

from shards.progress import begin_stage, log, part_of_progress, report_progress, set_sink

Report = tuple[int, int, str]


def test_without_a_sink_nothing_happens(capfd: pytest.CaptureFixture[str]) -> None:
    report_progress(1, 2)
    log("a line")
    with part_of_progress(1, 3):
        report_progress(1, 2)
    assert capfd.readouterr() == ("", "")


def test_a_sink_takes_what_is_reported_inside_its_block_alone() -> None:
    reports: list[Report] = []
    lines: list[str] = []
    with set_sink(log=lines.append):
        with set_sink(progress=lambda *report: reports.append(report)):
            begin_stage("training")
            report_progress(1, 2, "loss 1.0")
            log("inside")
        report_progress(2, 2)
        log("beside")
    log("outside")
    assert reports == [(0, 0, "training"), (1, 2, "loss 1.0")]
    assert lines == ["inside", "beside"]


def test_a_sink_is_restored_after_an_error() -> None:
    lines: list[str] = []
    with pytest.raises(ZeroDivisionError), set_sink(log=lines.append):
        raise ZeroDivisionError
    log("outside")
    assert lines == []


def test_a_part_counts_within_the_whole() -> None:
    reports: list[Report] = []
    with set_sink(progress=lambda *report: reports.append(report)), part_of_progress(10, 30):
        report_progress(0, 20, "val")
        report_progress(5, 20, "val")
    assert reports == [(10, 30, "val"), (15, 30, "val")]
