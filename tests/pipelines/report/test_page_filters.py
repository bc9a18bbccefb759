"""The gallery's filters, sorting and search, and the addresses that hold them, in Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from pipelines.evaluation.outcome_kinds import OutcomeKind
from tests.support.browser import Tab, launch_browser, needs_chromium, open_tab
from tests.support.drawn_report import write_report
from tests.support.report_data import read_index

pytestmark = needs_chromium
TEXTS = ("The red Circle left", "circle that is RED", "a red square", "ﬁve blue stars")
Index = dict[str, Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch_browser() as launched:
        yield launched


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(
        tmp_path_factory.mktemp("report") / "out", expressions=40, sets=("first", "second"), texts=TEXTS
    )


@pytest.fixture(scope="module")
def index(report: Path) -> Index:
    return read_index(report.parent)


@pytest.fixture(scope="module")
def opened(browser: Browser, report: Path) -> Iterator[Tab]:
    """The page on a screen so tall that all tiles exist."""
    with open_tab(browser, report, height=6000) as opened:
        yield opened


@pytest.fixture
def tab(opened: Tab) -> Tab:
    """The page as a reader finds it: loading it for each test would take most of their time."""
    opened.page.evaluate(
        """() => {
          igvg.address.cancel();
          document.activeElement.blur();
          const followed = new Promise((resolve) => addEventListener("hashchange", resolve, { once: true }));
          location.hash = `#?visit=${performance.now()}`;
          return followed;
        }"""
    )
    assert opened.errors == []
    assert list_filters(opened.page) == []
    return opened


def list_filters(page: Page) -> list[str]:
    """What is filtered by; both sets are shown, in the order of the shards."""
    assert page.get_by_label("Sort by").input_value() == "order"
    assert page.get_by_label("Thumbnails show").input_value() == "both"
    assert page.locator("input[name=set][value=both]").is_checked()
    checked = page.locator("#filters input[type=checkbox]:checked").evaluate_all("(all) => all.map((box) => box.value)")
    return [*checked, *filter(None, [page.get_by_label("Text of the expression").input_value()])]


def list_shown(page: Page) -> list[str]:
    """The ids of the tiles, in order."""
    tiles = page.locator(".tile a").evaluate_all("(links) => links.map((a) => a.getAttribute('href'))")
    return [href.removeprefix("#").split("?")[0] for href in tiles]


def find_chip(page: Page, value: str | int) -> Locator:
    return page.locator(f"label.chip:has(input[value='{value}'])")


def test_all_expressions_are_shown_in_the_order_of_the_shards(tab: Tab, index: Index) -> None:
    assert list_shown(tab.page) == index["id"]
    expect(tab.page.get_by_role("status")).to_have_text("40 expressions")


@pytest.mark.parametrize("kind", ["none", "one", "several"])
def test_expressions_of_a_kind(tab: Tab, index: Index, kind: str) -> None:
    find_chip(tab.page, kind).click()
    ids = [each for each, other in zip(index["id"], index["kind"], strict=True) if other == kind]
    assert list_shown(tab.page) == ids
    expect(tab.page.locator("#result-count")).to_have_text(f"{len(ids)} of 40 expressions")
    assert find_chip(tab.page, kind).locator(".count").text_content() == str(len(ids))


def test_kinds_add_to_each_other(tab: Tab, index: Index) -> None:
    find_chip(tab.page, "none").click()
    find_chip(tab.page, "one").click()
    assert len(list_shown(tab.page)) == sum(kind != "several" for kind in index["kind"])
    find_chip(tab.page, "none").click()
    assert len(list_shown(tab.page)) == sum(kind == "one" for kind in index["kind"])


@pytest.mark.parametrize("which", [0, 1])
def test_outcomes_are_those_of_the_chosen_set(tab: Tab, index: Index, which: int) -> None:
    find_chip(tab.page, which).click()
    for outcome in ("lost instance", "loose mask"):
        find_chip(tab.page, outcome).click()
    outcomes = index["results"][which]["outcome"]
    expected = [
        each for each, outcome in zip(index["id"], outcomes, strict=True) if outcome in ("lost instance", "loose mask")
    ]
    assert list_shown(tab.page) == expected


def test_outcomes_of_both_sets_are_those_of_either(tab: Tab, index: Index) -> None:
    find_chip(tab.page, "wrong object").click()
    pairs = zip(index["id"], *(result["outcome"] for result in index["results"]), strict=True)
    assert list_shown(tab.page) == [each for each, *outcomes in pairs if "wrong object" in outcomes]


def test_only_where_the_outcomes_differ(tab: Tab, index: Index) -> None:
    tab.page.get_by_label("Only where the outcomes differ").check()
    pairs = zip(index["id"], *(result["outcome"] for result in index["results"]), strict=True)
    assert list_shown(tab.page) == [each for each, first, second in pairs if first != second]


def test_outcomes_stand_in_the_order_of_their_kinds(tab: Tab) -> None:
    values = tab.page.locator("input[name=outcome]").evaluate_all("(inputs) => inputs.map((input) => input.value)")
    assert values == [kind.value for kind in OutcomeKind if kind.value in values]


@pytest.mark.parametrize(
    ("text", "found"),
    [("red circle", [0, 1]), ("  CIRCLE  ", [0, 1]), ("square", [2]), ("five", [3]), ("red purple star", [])],
)
def test_all_words_of_the_text_occur_in_any_order(tab: Tab, index: Index, text: str, found: list[int]) -> None:
    tab.page.get_by_label("Text of the expression").fill(text)
    shown = [each for each in list_shown(tab.page) if each in index["id"][: len(TEXTS)]]
    assert shown == [index["id"][each] for each in found]
    assert tab.page.locator("#no-matches").is_visible() == (not list_shown(tab.page))


@pytest.mark.parametrize(
    ("name", "reverse"), [("IoU of A, lowest first", False), ("IoU of A, highest first", True)], ids=["up", "down"]
)
def test_sorted_by_iou_equal_ones_keep_their_order(tab: Tab, index: Index, name: str, reverse: bool) -> None:
    tab.page.get_by_label("Sort by").select_option(label=name)
    iou = index["results"][0]["iou"]
    order = sorted(range(40), key=lambda each: -iou[each] if reverse else iou[each])
    assert list_shown(tab.page) == [index["id"][each] for each in order]


@pytest.mark.parametrize(("name", "sign"), [("B better than A first", -1), ("A better than B first", 1)])
def test_sorted_by_the_difference_of_the_sets(tab: Tab, index: Index, name: str, sign: int) -> None:
    tab.page.get_by_label("Sort by").select_option(label=name)
    gains = [b - a for a, b in zip(index["results"][0]["iou"], index["results"][1]["iou"], strict=True)]
    order = sorted(range(40), key=lambda each: sign * gains[each])
    assert list_shown(tab.page) == [index["id"][each] for each in order]


def test_what_has_no_iou_comes_last(tab: Tab) -> None:
    call = """(sort) => igvg.filters.listMatches(
      { id: [1, 2, 3, 4], sets: ["a"], results: [{ outcome: [], iou: [null, 50, null, 20] }] },
      { ...igvg.filters.makeState(), sort })"""
    assert tab.page.evaluate(call, "iou-up") == [3, 1, 0, 2]
    assert tab.page.evaluate(call, "iou-down") == [1, 3, 0, 2]


def test_an_address_holds_the_filters(tab: Tab, browser: Browser) -> None:
    find_chip(tab.page, "several").click()
    find_chip(tab.page, 1).click()
    find_chip(tab.page, "extra instance").click()
    tab.page.get_by_label("Only where the outcomes differ").check()
    tab.page.get_by_label("Text of the expression").fill("the &?#%")
    tab.page.get_by_label("Text of the expression").fill("the")
    tab.page.get_by_label("Sort by").select_option("gain")
    tab.page.get_by_label("Thumbnails show").select_option(label="Ground truth")
    shown = list_shown(tab.page)
    expect(tab.page).to_have_url(re.compile("show=truth"))
    with open_tab(browser, tab.page.url, height=6000) as other:
        assert list_shown(other.page) == shown
        assert other.page.get_by_label("Sort by").input_value() == "gain"
        assert other.page.get_by_label("Thumbnails show").input_value() == "truth"
        assert other.page.locator("#filters input:checked").count() == 4


def test_states_survive_their_address(tab: Tab) -> None:
    call = """() => {
      const state = { ...igvg.filters.makeState(), id: "a?b/c d#%/é", text: "x&y=#%+ ü", sort: "iou-up" };
      const read = igvg.filters.parseHash(igvg.filters.formatHash(state), 2);
      return [read.id, read.text, read.sort];
    }"""
    assert tab.page.evaluate(call) == ["a?b/c d#%/é", "x&y=#%+ ü", "iou-up"]


@pytest.mark.parametrize("address", ["#?sort=bad&set=7&show=no", "#%E0%A4%A?kind=", "#?%%%"])
def test_an_address_that_makes_no_sense_shows_everything(browser: Browser, report: Path, address: str) -> None:
    with open_tab(browser, f"{report.as_uri()}{address}", height=6000) as tab:
        assert len(list_shown(tab.page)) == 40


def test_addresses_written_by_the_page_are_not_followed(tab: Tab) -> None:
    tab.page.evaluate("window.followed = 0; igvg.address.onChange(() => (window.followed += 1))")
    tab.page.evaluate("igvg.address.replace('#?kind=one'); igvg.address.replace('#?kind=several')")
    expect(tab.page).to_have_url(re.compile("#\\?kind=several$"))
    assert tab.page.evaluate("window.followed") == 0
    tab.page.evaluate("location.hash = '#?kind=none'")
    tab.page.wait_for_function("window.followed === 1")


def test_clear_filters_keeps_the_set(tab: Tab) -> None:
    find_chip(tab.page, 0).click()
    find_chip(tab.page, "one").click()
    tab.page.get_by_label("Text of the expression").fill("red")
    tab.page.get_by_role("button", name="Clear filters").click()
    assert len(list_shown(tab.page)) == 40
    expect(tab.page).to_have_url(re.compile(r"#\?set=0$"))
    expect(tab.page.get_by_label("Text of the expression")).to_be_focused()
    expect(tab.page.get_by_label("Text of the expression")).to_have_value("")


def test_a_slash_leads_to_the_search(tab: Tab) -> None:
    tab.page.get_by_label("Text of the expression").fill("red")
    tab.page.locator(".tile a").first.focus()
    tab.page.keyboard.press("/")
    expect(tab.page.get_by_label("Text of the expression")).to_be_focused()
    tab.page.keyboard.type("a/b")
    expect(tab.page.get_by_label("Text of the expression")).to_have_value("a/b")


def test_chips_keep_the_focus_while_the_keyboard_uses_them(tab: Tab) -> None:
    tab.page.locator("input[name=outcome]").first.focus()
    for _ in range(2):
        tab.page.keyboard.press("Space")
        expect(tab.page.locator("input[name=outcome]").first).to_be_focused()
    tab.page.locator("input[name=set]").first.focus()
    tab.page.keyboard.press("ArrowRight")
    expect(tab.page.locator("input[name=set]").nth(1)).to_be_focused()


def test_one_set_has_no_choice_of_sets(browser: Browser, tmp_path: Path) -> None:
    with open_tab(browser, write_report(tmp_path / "out", expressions=4)) as tab:
        expect(tab.page.locator("#sets")).to_be_hidden()
        assert tab.page.get_by_label("Sort by").locator("option").count() == 3
        assert tab.page.locator(".set-letter").count() == 0


def test_thumbnails_show_what_is_chosen(tab: Tab) -> None:
    canvas = tab.page.locator(".tile-image canvas").first
    expect(canvas).to_be_visible()
    drawn = canvas.evaluate("(canvas) => canvas.toDataURL()")
    tab.page.get_by_label("Thumbnails show").select_option(label="Predictions of A")
    expect(canvas).to_be_visible()
    assert canvas.evaluate("(canvas) => canvas.toDataURL()") != drawn
    tab.page.get_by_label("Thumbnails show").select_option(label="Images alone")
    expect(canvas).to_have_count(0)
