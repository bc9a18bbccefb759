"""The report's page as a whole, in Chromium: it opens from disk, on any screen, and shows texts as texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from pipelines.report.page import render_page
from pipelines.report.summary import Summary
from tests.support.browser import (
    launch_browser,
    list_low_contrast,
    list_unnamed_controls,
    needs_chromium,
    open_tab,
)
from tests.support.drawn_report import write_report
from tests.support.report_data import read_index

HOSTILE = (
    "<script>document.title = 'broken'</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "</script><script>alert(1)</script>",
    "{{ 7 * 7 }} &amp; ${7 * 7} \u2028 '\"`",
    "הריבוע האדום \u202e left",
    "🔴 the red one 👩‍👩‍👧",
    "w" * 400,
    "a lone \ud800 surrogate",
)
SCREENS = pytest.mark.parametrize(("width", "dark"), [(360, False), (360, True), (1400, False), (1400, True)])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch_browser() as launched:
        yield launched


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report about two sets, whose first expressions are hostile."""
    sets = ("runs/<b>first</b>-val", "runs/a-second-set-with-quite-a-long-name/predictions/of/val")
    return write_report(tmp_path_factory.mktemp("report") / "out", sets=sets, texts=HOSTILE)


@needs_chromium
def test_it_opens_from_disk_and_asks_for_nothing_but_its_own_files(browser: Browser, report: Path) -> None:
    with open_tab(browser, report) as tab:
        tab.page.locator(".tile a").first.click()
        expect(tab.page.locator("#viewer canvas").first).to_be_visible()
        folder = report.parent.as_uri()
        own = re.compile(re.escape(folder) + r"/(index\.html|data/[\w-]+\.js|(images|thumbnails)/\d+\.jpg)(#.*)?")
        assert [url for url in tab.requests if not own.fullmatch(url)] == []
        assert {url.removeprefix(folder).split("/")[1] for url in tab.requests} >= {"data", "images", "thumbnails"}


@needs_chromium
def test_its_policy_stops_requests_and_scripts_of_others(browser: Browser, report: Path) -> None:
    with open_tab(browser, report, expect_errors=True) as tab:
        tab.page.evaluate("fetch('https://example.org/').catch(() => {})")
        tab.page.evaluate("document.body.append(Object.assign(new Image(), { src: 'https://example.org/a.png' }))")
        tab.page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.ran = 1' }))"
        )
        tab.page.wait_for_timeout(200)
        for directive in ("connect-src", "img-src", "script-src"):
            assert any("Content Security Policy" in error and directive in error for error in tab.errors), directive
        assert tab.page.evaluate("window.ran") is None


@needs_chromium
@SCREENS
def test_every_control_is_named_and_every_text_has_contrast(
    browser: Browser, report: Path, width: int, dark: bool
) -> None:
    with open_tab(browser, report, width=width, dark=dark) as tab:
        tab.page.locator("label:has-text('lost instance')").first.click()
        assert list_unnamed_controls(tab.page) == []
        assert list_low_contrast(tab.page) == []
        tab.page.locator(".tile a").first.click()
        tab.page.locator("summary", has_text="Keyboard").click()
        assert list_unnamed_controls(tab.page) == []
        assert list_low_contrast(tab.page) == []


@needs_chromium
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_is_wider_than_the_screen(browser: Browser, report: Path, width: int) -> None:
    with open_tab(browser, report, width=width) as tab:
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        for index in range(len(HOSTILE)):
            tab.page.evaluate(f"location.hash = '#grefcoco/{index}/{index}'")
            expect(tab.page.locator("#viewer canvas").first).to_be_visible()
            assert tab.page.evaluate("document.getElementById('viewer').scrollWidth") <= width
            title = tab.page.locator("#viewer-text")
            assert title.evaluate("(element) => element.scrollWidth <= element.clientWidth")
            assert tab.page.evaluate("document.querySelector('.viewer-body').scrollWidth") <= width


@needs_chromium
def test_images_of_two_sets_stand_at_one_height_whatever_their_names(browser: Browser, report: Path) -> None:
    with open_tab(browser, f"{report.as_uri()}#grefcoco/9/9", width=1000) as tab:
        expect(tab.page.locator("#viewer canvas").last).to_be_visible()
        lengths = tab.page.locator(".panel-name").evaluate_all(
            "(names) => names.map((name) => name.textContent.length)"
        )
        assert max(lengths) > 2 * min(lengths)
        first, second = tab.page.locator(".stage").evaluate_all(
            "(stages) => stages.map((stage) => stage.getBoundingClientRect().top)"
        )
        assert first == second


@needs_chromium
def test_expressions_and_names_that_look_like_html_are_shown_as_text(browser: Browser, report: Path) -> None:
    with open_tab(browser, report) as tab:
        for index, text in enumerate(HOSTILE):
            assert tab.page.locator(f".tile[aria-posinset='{index + 1}'] .tile-text").text_content() == text
            tab.page.evaluate(f"location.hash = '#grefcoco/{index}/{index}'")
            expect(tab.page.locator("#viewer-text")).to_have_text(text, use_inner_text=False)
            assert tab.page.locator("#viewer-text *").count() == 0
        expect(tab.page.locator(".summary-sets")).to_contain_text("runs/<b>first</b>-val")
        assert "broken" not in tab.page.title()


@needs_chromium
def test_the_title_and_the_names_of_sets_are_escaped(browser: Browser, tmp_path: Path) -> None:
    page, name = tmp_path / "index.html", "</title><script>document.title = 'broken'</script>"
    page.write_text(render_page(Summary(), title=name, sets=()), encoding="utf-8")
    with open_tab(browser, page) as tab:
        assert tab.page.title() == name
        assert tab.page.locator("h1").text_content() == name


@needs_chromium
def test_a_report_without_predictions_has_no_gallery(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text(render_page(Summary(), title="runs/first", sets=()), encoding="utf-8")
    with open_tab(browser, page) as tab:
        assert tab.page.locator("#gallery, #viewer").count() == 0
        assert tab.requests == [page.as_uri()]
        tab.page.get_by_role("button", name="Dark colors").click()
        assert tab.page.locator("html").get_attribute("data-theme") == "dark"


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_colors_follow_the_system_until_the_switch_is_used(browser: Browser, report: Path, dark: bool) -> None:
    def is_dark() -> bool:
        brightness: int = tab.page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
        return brightness < 128

    with open_tab(browser, report, dark=dark) as tab:
        assert is_dark() == dark
        tab.page.get_by_role("button", name="Light colors" if dark else "Dark colors").click()
        assert is_dark() != dark
        tab.page.reload()
        assert is_dark() != dark


@needs_chromium
def test_missing_and_damaged_files_are_named(browser: Browser, tmp_path: Path) -> None:
    page = write_report(tmp_path / "out", expressions=3)
    details = page.parent / "data" / "details-0000.js"
    for damage in (lambda: details.write_bytes(details.read_bytes()[:-9]), details.unlink):
        damage()
        with open_tab(browser, f"{page.as_uri()}#grefcoco/1/1", expect_errors=True) as tab:
            expect(tab.page.locator("#viewer").get_by_role("alert")).to_contain_text("data/details-0000.js")
    (page.parent / "data" / "expressions.js").unlink()
    with open_tab(browser, page, expect_errors=True) as tab:
        expect(tab.page.get_by_role("alert")).to_contain_text("data/expressions.js")


@needs_chromium
def test_the_grid_holds_only_tiles_near_the_screen(browser: Browser, tmp_path: Path) -> None:
    page = write_report(tmp_path / "out", expressions=300)
    with open_tab(browser, page) as tab:
        assert tab.page.locator(".tile").count() < 60
        tab.page.evaluate("scrollTo(0, document.body.scrollHeight)")
        last = tab.page.locator(".tile[aria-posinset='300']")
        expect(last).to_be_in_viewport()
        assert last.locator(".tile-text").text_content() == read_index(page.parent)["text"][-1]
        assert tab.page.locator(".tile").count() < 60


@needs_chromium
def test_reduced_motion_is_respected(browser: Browser, report: Path) -> None:
    with open_tab(browser, report) as tab:
        read = "getComputedStyle(document.getElementById('clear')).transitionDuration"
        assert tab.page.evaluate(read) != "0s"
        tab.page.emulate_media(reduced_motion="reduce")
        assert tab.page.evaluate(read) == "0s"
        assert tab.page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


@needs_chromium
def test_the_page_has_landmarks_and_tables_have_headers(browser: Browser, report: Path) -> None:
    with open_tab(browser, report) as tab:
        page = tab.page
        for role in ("banner", "main", "search"):
            expect(page.get_by_role(role)).to_have_count(1)  # type: ignore[arg-type]
        expect(page.get_by_role("region", name="Expressions")).to_be_visible()
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        page.locator(".tile a").first.click()
        expect(page.get_by_role("dialog")).to_have_accessible_name(HOSTILE[0])
        expect(page.get_by_role("complementary")).to_be_visible()
        bare = "(tables) => tables.filter((table) => !table.querySelector('thead th[scope=col]')).length"
        assert page.locator("table").evaluate_all(bare) == 0


@needs_chromium
def test_the_focus_is_visible_on_every_control(browser: Browser, report: Path) -> None:
    outlined = """() => {
      const element = document.activeElement.closest(".chip") ?? document.activeElement;
      return element === document.body || getComputedStyle(element).outlineStyle !== "none";
    }"""
    with open_tab(browser, report) as tab:
        for _ in range(24):
            tab.page.keyboard.press("Tab")
            assert tab.page.evaluate(outlined), tab.page.evaluate("document.activeElement.outerHTML")
        tab.page.locator(".tile a").first.click()
        for _ in range(16):
            tab.page.keyboard.press("Tab")
            assert tab.page.evaluate(outlined), tab.page.evaluate("document.activeElement.outerHTML")


@needs_chromium
def test_details_are_dropped_when_many_others_were_used_since(browser: Browser, tmp_path: Path) -> None:
    page = write_report(tmp_path / "out", expressions=1)
    data = page.parent / "data"
    for chunk in range(1, 62):
        (data / f"details-{chunk:04d}.js").write_text(f"igvg.loadDetails({chunk}, [{chunk}]);")
    with open_tab(browser, page) as tab:
        read = "async (chunks) => { for (const chunk of chunks) await igvg.details.load(100 * chunk, 100); }"
        tab.page.evaluate(read, [1, 2, *range(1, 62), 61, 61, 2, 1])
        names = [url.rpartition("/")[2] for url in tab.requests if "details" in url]
        assert names.count("details-0061.js") == 1
        assert names.count("details-0001.js") == 2
