"""The viewer of the report's page, in Chromium: layers, keyboard, links, and two sets side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.browser import launch_browser, needs_chromium, open_tab
from tests.support.drawn_report import write_report
from tests.support.report_data import read_details, read_index

pytestmark = needs_chromium
LAYERS = {
    "Attention map": "a", "Global mask": "g", "Merged mask": "m", "Instance masks": "i", "Ground truth masks": "r",
    "Ground truth boxes": "t", "Predicted boxes": "b", "Points of all queries": "q", "Reference points": "p",
}  # fmt: skip
PIXELS = "(canvas) => canvas.toDataURL()"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch_browser() as launched:
        yield launched


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report about one set."""
    return write_report(tmp_path_factory.mktemp("one") / "out", expressions=130)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report about two sets."""
    return write_report(tmp_path_factory.mktemp("two") / "out", expressions=40, sets=("first", "second"))


def find_full(report: Path) -> int:
    """The first expression with several targets and several instances."""
    kinds, instances = read_index(report.parent)["kind"], read_index(report.parent)["results"][0]["instances"]
    return next(
        i for i, (kind, count) in enumerate(zip(kinds, instances, strict=True)) if kind == "several" and count > 1
    )


def link(report: Path, index: int, query: str = "") -> str:
    return f"{report.as_uri()}#grefcoco/{index}/{index}{query}"


def hide_all(page: Page) -> None:
    for box in page.locator(".layers input").all():
        box.set_checked(False)


def find_canvas(page: Page) -> Locator:
    canvas = page.locator("#viewer canvas").first
    expect(canvas).to_be_visible()
    return canvas


def read_pixel(canvas: Locator, x: float, y: float, width: int) -> list[int]:
    """RGBA at a point in pixels of an image of this width."""
    read = """(canvas, [x, y, width]) => {
      const scale = canvas.width / width;
      return [...canvas.getContext("2d").getImageData(Math.floor(x * scale), Math.floor(y * scale), 1, 1).data];
    }"""
    pixel: list[int] = canvas.evaluate(read, [x, y, width])
    return pixel


def test_a_link_opens_its_expression(browser: Browser, report: Path) -> None:
    index = read_index(report.parent)
    with open_tab(browser, link(report, 117)) as tab:
        assert tab.page.locator("#viewer-text").text_content() == index["text"][117]
        expect(tab.page.locator("[data-part=id]")).to_have_text("grefcoco/117/117")
        expect(tab.page.locator("[data-part=position]")).to_have_text("118 of 130")
        expect(tab.page.locator(".facts .outcome")).to_have_text(index["results"][0]["outcome"][117])
        assert index["text"][117] in tab.page.title()
        assert [url.rpartition("/")[2] for url in tab.requests if "details" in url][-1] == "details-0001.js"


def test_a_link_to_an_unknown_expression_says_so(browser: Browser, report: Path) -> None:
    with open_tab(browser, f"{report.as_uri()}#grefcoco/no/such") as tab:
        expect(tab.page.get_by_role("alert")).to_have_text("The gallery has no expression with the id grefcoco/no/such")
        expect(tab.page.get_by_role("alert")).to_be_in_viewport()
        expect(tab.page.locator("#viewer")).to_be_hidden()


@pytest.fixture(scope="module")
def full(browser: Browser, report: Path) -> Iterator[Page]:
    """An expression that all layers have something to draw of."""
    with open_tab(browser, link(report, find_full(report))) as tab:
        yield tab.page


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_drawn_while_it_is_switched_on(full: Page, name: str) -> None:
    canvas = find_canvas(full)
    hide_all(full)
    empty = canvas.evaluate(PIXELS)
    box = full.get_by_role("checkbox", name=name)
    box.click()
    drawn = canvas.evaluate(PIXELS)
    assert drawn != empty
    full.keyboard.press(LAYERS[name])
    expect(box).not_to_be_checked()
    assert canvas.evaluate(PIXELS) == empty
    full.keyboard.press(LAYERS[name])
    assert canvas.evaluate(PIXELS) == drawn


def test_masks_are_drawn_where_they_are(browser: Browser, report: Path) -> None:
    index = find_full(report)
    detail, at = read_details(report.parent)[index], read_index(report.parent)["image"][index]
    width = read_index(report.parent)["images"]["width"][at]
    with open_tab(browser, link(report, index)) as tab:
        canvas = find_canvas(tab.page)
        hide_all(tab.page)
        tab.page.keyboard.press("i")
        for mask, (x, y) in zip(detail["results"][0]["instance_masks"], detail["results"][0]["points"], strict=True):
            pixels = tab.page.evaluate("(mask) => [...igvg.masks.decodeMask(mask)]", mask)
            inside = pixels[int(y) * width + int(x)]
            assert (read_pixel(canvas, x, y, width)[3] > 0) >= bool(inside)


def test_instances_switch_by_box_and_by_digit(browser: Browser, report: Path) -> None:
    with open_tab(browser, link(report, find_full(report))) as tab:
        canvas = find_canvas(tab.page)
        both = canvas.evaluate(PIXELS)
        tab.page.get_by_role("checkbox", name="Show instance 2").click()
        one = canvas.evaluate(PIXELS)
        assert one != both
        tab.page.keyboard.press("2")
        assert canvas.evaluate(PIXELS) == both
        tab.page.keyboard.press("1")
        assert canvas.evaluate(PIXELS) not in (both, one)


def test_points_are_numbered_where_neither_boxes_nor_masks_are_shown(full: Page, report: Path) -> None:
    """Beside a point lies a label in its color."""
    index = find_full(report)
    x, y = read_details(report.parent)[index]["results"][0]["points"][0]
    data = read_index(report.parent)
    width = data["images"]["width"][data["image"][index]]
    canvas = find_canvas(full)
    hide_all(full)
    full.keyboard.press("p")
    pixel = width / canvas.evaluate("(canvas) => canvas.clientWidth")
    assert read_pixel(canvas, x + 11 * pixel, y - 8 * pixel, width) == [230, 159, 0, 255]
    full.keyboard.press("b")
    assert read_pixel(canvas, x + 11 * pixel, y - 8 * pixel, width) != [230, 159, 0, 255]


@pytest.mark.parametrize("letter", ["i", "b", "p"])
def test_a_hidden_instance_is_drawn_in_no_layer(full: Page, letter: str) -> None:
    canvas = find_canvas(full)
    hide_all(full)
    empty = canvas.evaluate(PIXELS)
    full.keyboard.press(letter)
    instances = full.locator("[data-instance]").count()
    for instance in range(instances):
        full.keyboard.press(str(instance + 1))
    assert canvas.evaluate(PIXELS) == empty
    for instance in range(instances):
        full.keyboard.press(str(instance + 1))
    assert canvas.evaluate(PIXELS) != empty


@pytest.mark.parametrize("ratio", [1, 1.5, 3])
def test_small_images_are_enlarged_and_drawn_in_device_pixels(browser: Browser, report: Path, ratio: float) -> None:
    with open_tab(browser, link(report, 0), pixel_ratio=ratio) as tab:
        canvas = find_canvas(tab.page)
        box = canvas.bounding_box()
        assert box is not None
        assert max(box["width"], box["height"]) >= 640
        assert abs(canvas.evaluate("(canvas) => canvas.width") - ratio * box["width"]) <= 1
        assert tab.page.locator(".stage img").bounding_box() == box


def test_the_image_follows_the_size_of_the_screen(browser: Browser, report: Path) -> None:
    with open_tab(browser, link(report, 0)) as tab:
        canvas = find_canvas(tab.page)
        tab.page.set_viewport_size({"width": 360, "height": 640})
        tab.page.wait_for_function("document.querySelector('#viewer canvas').clientWidth < 360")
        assert canvas.evaluate("(canvas) => canvas.width === canvas.clientWidth")


def test_previous_and_next_follow_filter_and_sorting(browser: Browser, report: Path) -> None:
    index = read_index(report.parent)
    iou = index["results"][0]["iou"]
    order = sorted((i for i in range(130) if index["kind"][i] == "one"), key=lambda each: -iou[each])
    with open_tab(browser, f"{report.as_uri()}#?kind=one&sort=iou-down") as tab:
        tab.page.locator(".tile a").first.click()
        shown = tab.page.locator("[data-part=id]")
        expect(shown).to_have_text(index["id"][order[0]])
        expect(tab.page.get_by_role("button", name="Previous expression")).to_be_disabled()
        for key, position in (("ArrowRight", 1), ("j", 2), ("k", 1), ("ArrowLeft", 0), ("ArrowLeft", 0)):
            tab.page.keyboard.press(key)
            expect(shown).to_have_text(index["id"][order[position]])
        tab.page.get_by_role("button", name="Next expression").click()
        expect(shown).to_have_text(index["id"][order[1]])
        expect(tab.page).to_have_url(re.compile(re.escape(f"#{index['id'][order[1]]}?kind=one&sort=iou-down") + "$"))


def test_from_outside_of_the_filters_next_leads_to_the_first(browser: Browser, report: Path) -> None:
    kinds = read_index(report.parent)["kind"]
    with open_tab(browser, link(report, kinds.index("several"), "?kind=none")) as tab:
        expect(tab.page.locator("[data-part=position]")).to_have_text("outside of the filters")
        tab.page.keyboard.press("j")
        expect(tab.page.locator("[data-part=id]")).to_have_text(read_index(report.parent)["id"][kinds.index("none")])


def test_escape_leads_back_to_the_tile(browser: Browser, report: Path) -> None:
    with open_tab(browser, report) as tab:
        tab.page.locator(".tile a").first.click()
        for _ in range(30):
            tab.page.keyboard.press("j")
        expect(tab.page.locator("[data-part=position]")).to_have_text("31 of 130")
        tab.page.keyboard.press("Escape")
        expect(tab.page.locator("#viewer")).to_be_hidden()
        expect(tab.page.locator(".tile[aria-posinset='31'] a")).to_be_focused()
        expect(tab.page.locator(".tile[aria-posinset='31'] a")).to_be_in_viewport()
        assert tab.page.title() == "grefcoco val"
        tab.page.keyboard.press("Enter")
        expect(tab.page.locator("[data-part=position]")).to_have_text("31 of 130")


def test_each_panel_draws_its_own_set(browser: Browser, pair: Path) -> None:
    details = [detail["results"] for detail in read_details(pair.parent)]
    index = next(i for i, (first, second) in enumerate(details) if first["boxes"] and not second["boxes"])
    with open_tab(browser, link(pair, index)) as tab:
        hide_all(tab.page)
        first, second = tab.page.locator("#viewer canvas").all()
        empty = second.evaluate(PIXELS)
        assert first.evaluate(PIXELS) == empty
        tab.page.keyboard.press("b")
        assert first.evaluate(PIXELS) != empty
        assert second.evaluate(PIXELS) == empty


def test_back_closes_the_viewer(browser: Browser, report: Path) -> None:
    with open_tab(browser, report) as tab:
        tab.page.locator(".tile a").first.click()
        tab.page.keyboard.press("j")
        expect(tab.page).to_have_url(re.compile("#grefcoco/1/1$"))
        tab.page.go_back()
        expect(tab.page.locator("#viewer")).to_be_hidden()
        tab.page.go_forward()
        expect(tab.page.locator("[data-part=position]")).to_have_text("2 of 130")


def test_closing_the_viewer_goes_back(browser: Browser, report: Path) -> None:
    with open_tab(browser, report) as tab:
        tab.page.locator(".tile a").first.click()
        expect(tab.page.locator("#viewer")).to_be_visible()
        tab.page.keyboard.press("Escape")
        expect(tab.page).to_have_url(report.as_uri())
        tab.page.go_forward()
        expect(tab.page.locator("#viewer")).to_be_visible()


def test_closing_an_expression_opened_by_a_link_stays_on_the_page(browser: Browser, report: Path) -> None:
    with open_tab(browser, link(report, 3)) as tab:
        tab.page.get_by_role("button", name="Close").click()
        expect(tab.page.locator("#viewer")).to_be_hidden()
        expect(tab.page.locator(".tile[aria-posinset='4'] a")).to_be_focused()


def test_no_target_is_said_in_words(browser: Browser, report: Path) -> None:
    index = read_index(report.parent)
    kinds, instances = index["kind"], index["results"][0]["instances"]
    both = next(i for i in range(130) if kinds[i] == "none" and instances[i] == 0)
    found = next(i for i in range(130) if kinds[i] == "none" and instances[i])
    missed = next(i for i in range(130) if kinds[i] == "one" and instances[i] == 0)
    truth, prediction = "Ground truth: no target", "Prediction: no target"
    for each, notes in ((both, [truth, prediction]), (found, [truth]), (missed, [prediction])):
        with open_tab(browser, link(report, each)) as tab:
            expect(tab.page.locator(".note")).to_have_text(notes)


def test_layers_stay_as_they_are_from_one_expression_to_the_next(browser: Browser, report: Path) -> None:
    with open_tab(browser, link(report, 0)) as tab:
        find_canvas(tab.page)
        tab.page.keyboard.press("a")
        tab.page.keyboard.press("b")
        tab.page.keyboard.press("j")
        expect(tab.page.locator("[data-part=position]")).to_have_text("2 of 130")
        expect(tab.page.get_by_role("checkbox", name="Attention map")).to_be_checked()
        expect(tab.page.get_by_role("checkbox", name="Predicted boxes")).not_to_be_checked()


def test_two_sets_stand_side_by_side(browser: Browser, pair: Path) -> None:
    index = read_index(pair.parent)
    with open_tab(browser, link(pair, 1)) as tab:
        boxes = [panel.bounding_box() for panel in tab.page.locator(".panel").all()]
        assert boxes[0]
        assert boxes[1]
        assert boxes[0]["y"] == boxes[1]["y"]
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
        assert tab.page.locator(".facts .outcome").all_text_contents() == [r["outcome"][1] for r in index["results"]]
        counts = [str(result["instances"][1] or "no target") for result in index["results"]]
        assert tab.page.locator(".facts tr:has-text('Instances') td").all_text_contents() == counts
        before = [canvas.evaluate(PIXELS) for canvas in tab.page.locator("#viewer canvas").all()]
        tab.page.keyboard.press("t")
        tab.page.keyboard.press("b")
        after = [canvas.evaluate(PIXELS) for canvas in tab.page.locator("#viewer canvas").all()]
        assert all(one != other for one, other in zip(before, after, strict=True))


def test_two_sets_stand_below_each_other_on_a_phone(browser: Browser, pair: Path) -> None:
    with open_tab(browser, link(pair, 1), width=360, height=740) as tab:
        boxes = [panel.bounding_box() for panel in tab.page.locator(".panel").all()]
        assert boxes[0]
        assert boxes[1]
        assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]
        assert boxes[1]["y"] < 740
        side = tab.page.locator(".viewer-side").bounding_box()
        assert side
        assert boxes[1]["y"] + boxes[1]["height"] <= side["y"]


def test_a_chosen_set_is_shown_alone(browser: Browser, pair: Path) -> None:
    with open_tab(browser, link(pair, 1, "?set=1")) as tab:
        expect(tab.page.locator(".panel-name")).to_have_text(["B second"])


def test_predictions_without_raw_outputs_show_their_mask(browser: Browser, report: Path) -> None:
    call = """() => {
      const result = { boxes: null, scores: null, mask: { size: [2, 2], counts: "04" }, instance_masks: null,
                       global_mask: null, points: null, all_points: null, attention: null, existence: null };
      const truth = { boxes: [], masks: [] };
      const canvas = document.createElement("canvas");
      const shown = new Set(igvg.layers.LAYERS.map((layer) => layer.key));
      igvg.layers.draw(canvas, { width: 2, height: 2, displayWidth: 40, truth, result, shown });
      return canvas.getContext("2d").getImageData(20, 20, 1, 1).data[3];
    }"""
    with open_tab(browser, report) as tab:
        assert tab.page.evaluate(call) > 0
