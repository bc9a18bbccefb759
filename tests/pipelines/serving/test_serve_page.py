"""The page of a running server in Chromium."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from shards.masks import decode_mask
from tests.support.browser import launch_browser, list_low_contrast, list_unnamed_controls, needs_chromium, open_tab
from tests.support.drawn_images import draw_shapes
from tests.support.grounding_server import GroundingServer

pytestmark = needs_chromium

TEXTS = "the red square\nthe blue circle\n<img src=x onerror=alert(1)> & all squares"
FILE = {"name": "shapes.png", "mimeType": "image/png", "buffer": draw_shapes()}
GIVE = """
([kind, data]) => {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "given.png", { type: "image/png" }));
  const name = kind === "paste" ? "clipboardData" : "dataTransfer";
  const event = kind === "paste" ? ClipboardEvent : DragEvent;
  document.body.dispatchEvent(new event(kind, { [name]: transfer, bubbles: true, cancelable: true }));
}
"""


# The id of the control that has the focus, and its place on the page.
FOCUSED = """
() => [document.activeElement.id, document.activeElement.getBoundingClientRect().top + scrollY]
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch_browser() as running:
        yield running


def find(page: Page, texts: str = TEXTS) -> None:
    """Give the image and the expressions, and wait for the answer."""
    page.get_by_label("Expressions, one a line").fill(texts)
    page.get_by_label("Choose an image").set_input_files(FILE)
    page.locator("#result").wait_for()


def list_instances(page: Page) -> int:
    return page.locator("#facts tbody tr").count()


def read_canvas(page: Page) -> str:
    content: str = page.locator("#stage canvas").evaluate("canvas => canvas.toDataURL()")
    return content


def test_the_answers_of_the_api_are_shown(browser: Browser, server: GroundingServer) -> None:
    expected = server.predict(draw_shapes(), *TEXTS.split("\n")).document["results"]
    with open_tab(browser, server.url) as tab:
        find(tab.page)
        radios = tab.page.get_by_role("radio")
        assert radios.count() == 3
        for index, result in enumerate(expected):
            radios.nth(index).check()
            assert tab.page.get_by_role("heading", level=2, name=result["text"]).is_visible()
            assert tab.page.locator("#facts").inner_text().startswith(f"Existence {result['existence']:.2f}")
            scores = [f"{score:.3f}" for score in result["scores"]]
            assert tab.page.locator("#facts tbody tr td:nth-child(2)").all_inner_texts() == scores
            shares = [f"{100 * (x1 - x0) * (y1 - y0) / (240 * 160):.1f}" for x0, y0, x1, y1 in result["boxes"]]
            assert tab.page.locator("#facts tbody tr td:nth-child(3)").all_inner_texts() == shares
            assert tab.page.get_by_text("No target", exact=True).is_visible() is result["no_target"]
        assert tab.page.locator("img").count() == 1


def test_controls_change_the_answer_at_once_without_the_network(browser: Browser, server: GroundingServer) -> None:
    with open_tab(browser, server.url) as tab:
        page = tab.page
        find(page)
        passes, before = server.health()["forward_passes"], read_canvas(page)
        result = server.predict(draw_shapes(), "the red square").document["id"]
        slider = page.get_by_label("Score threshold")
        for threshold in (0.0, 0.95):
            (expected,) = server.postprocess(result, score_threshold=threshold).document["results"]
            slider.fill(str(threshold))
            expect(page.locator("#facts tbody tr")).to_have_count(len(expected["boxes"]))
        page.get_by_role("button", name="Reset").click()
        expect(slider).to_have_value("0.7")
        slider.fill("0.05")
        page.get_by_label("Non-maximum suppression").check()
        page.get_by_label("NMS IoU").fill("0.01")
        changes = {"score_threshold": 0.05, "nms": True, "nms_iou": 0.01}
        (expected,) = server.postprocess(result, **changes).document["results"]
        expect(page.locator("#facts tbody tr")).to_have_count(len(expected["boxes"]))
        page.get_by_label("Merged mask from").select_option("global")
        page.get_by_label("Mask threshold").fill("0.1")
        page.get_by_label("Weight scores with existence").uncheck()
        expect(page.locator("body")).not_to_have_attribute("aria-busy", "true")
        assert read_canvas(page) != before
        # One for the request of this test.
        assert server.health()["forward_passes"] == passes + 1


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_an_image_can_be_pasted_and_dropped(browser: Browser, server: GroundingServer, kind: str) -> None:
    with open_tab(browser, server.url) as tab:
        tab.page.get_by_label("Expressions, one a line").fill("the red square")
        tab.page.evaluate(GIVE, [kind, base64.b64encode(draw_shapes()).decode()])
        tab.page.locator("#result").wait_for()
        assert tab.page.locator("#file-name").inner_text() == "given.png"


def test_layers_switch_by_click_and_by_key(browser: Browser, server: GroundingServer) -> None:
    with open_tab(browser, server.url) as tab:
        page = tab.page
        find(page)
        for name, letter in (("Attention map", "a"), ("Merged mask", "m"), ("Predicted boxes", "b")):
            before = read_canvas(page)
            switch = page.get_by_role("checkbox", name=name)
            was_on = switch.is_checked()
            switch.click()
            assert switch.is_checked() is not was_on
            assert read_canvas(page) != before
            page.keyboard.press(letter)
            assert switch.is_checked() is was_on
            assert read_canvas(page) == before
        assert page.get_by_label("Ground truth").count() == 0


def test_the_page_works_by_keyboard_alone(browser: Browser, server: GroundingServer) -> None:
    with open_tab(browser, server.url) as tab:
        page = tab.page
        page.get_by_label("Choose an image").set_input_files(FILE)
        page.get_by_label("Expressions, one a line").focus()
        page.keyboard.type("the red square\nbam")
        page.keyboard.press("Control+Enter")
        page.locator("#result").wait_for()
        page.get_by_label("Score threshold").focus()
        page.keyboard.press("Home")
        page.keyboard.press("j")
        assert page.get_by_role("radio").nth(1).is_checked()
        page.keyboard.press("k")
        assert page.get_by_role("radio").nth(0).is_checked()
        first = page.get_by_label("Show instance 1", exact=True)
        expect(first).to_be_checked()
        page.keyboard.press("1")
        assert not first.is_checked()


def test_downloads_are_those_of_the_api_at_the_size_of_the_image(
    browser: Browser, server: GroundingServer, tmp_path: Path
) -> None:
    large = {"name": "large.png", "mimeType": "image/png", "buffer": draw_shapes(1500, 1000)}
    with open_tab(browser, server.url) as tab:
        page = tab.page
        page.get_by_label("Expressions, one a line").fill("the red square\nthe blue circle")
        page.get_by_label("Choose an image").set_input_files(large)
        page.get_by_role("radio").nth(1).check()
        files = {}
        for name in ("Mask, PNG", "All masks, ZIP", "JSON"):
            with page.expect_download() as download:
                page.get_by_role("button", name=name).click()
            download.value.save_as(tmp_path / "file")
            files[download.value.suggested_filename] = (tmp_path / "file").read_bytes()
    assert files.keys() == {"large-mask-2.png", "large-masks.zip", "large.json"}
    answer = json.loads(files["large.json"])
    assert (answer["width"], answer["height"]) == (1500, 1000)
    with Image.open(io.BytesIO(files["large-mask-2.png"])) as image:
        np.testing.assert_array_equal(np.asarray(image) > 0, decode_mask(answer["results"][1]["mask"]))
    with zipfile.ZipFile(io.BytesIO(files["large-masks.zip"])) as archive:
        assert archive.read("2.png") == files["large-mask-2.png"]


@pytest.mark.parametrize("dark", [False, True])
def test_every_control_has_a_name_and_texts_have_contrast(
    browser: Browser, server: GroundingServer, dark: bool
) -> None:
    with open_tab(browser, server.url, dark=dark) as tab:
        for step in (lambda: None, lambda: find(tab.page)):
            step()
            assert list_unnamed_controls(tab.page) == []
            assert list_low_contrast(tab.page) == []


def test_the_page_fits_360_pixels_and_keeps_the_image_in_view(browser: Browser, server: GroundingServer) -> None:
    with open_tab(browser, server.url, width=360, height=740) as tab:
        find(tab.page, TEXTS + "\n" + "x" * 300)
        assert tab.page.evaluate("document.documentElement.scrollWidth") == 360
        tab.page.get_by_label("NMS IoU").scroll_into_view_if_needed()
        box = tab.page.locator("#stage").bounding_box()
        assert box is not None
        assert 0 <= box["y"] < 300


@pytest.mark.parametrize("width", [360, 1400])
def test_controls_follow_each_other_as_they_stand(browser: Browser, server: GroundingServer, width: int) -> None:
    """In one column from above; in two, the form comes before the answers and these before the settings."""
    with open_tab(browser, server.url, width=width) as tab:
        find(tab.page)
        names = ["file", "texts", "find", "download-mask", "download-json", "setting-score_threshold", "setting-nms"]
        tab.page.locator("#theme").focus()
        reached, tops = [], []
        while "setting-nms" not in reached:
            tab.page.keyboard.press("Tab")
            name, top = tab.page.evaluate(FOCUSED)
            assert len(reached) < 40
            reached.append(name)
            tops.append(top)
        assert [name for name in reached if name in names] == names
        if width == 360:
            # Those in one row differ by some pixels.
            assert all(top >= max(tops[:index], default=0) - 10 for index, top in enumerate(tops))


def test_an_image_that_the_browser_cannot_show_is_named(browser: Browser, server: GroundingServer) -> None:
    scan = {"name": "scan.tiff", "mimeType": "image/tiff", "buffer": draw_shapes(kind="tiff")}
    with open_tab(browser, server.url) as tab:
        tab.page.get_by_label("Expressions, one a line").fill("the red square")
        tab.page.get_by_label("Choose an image").set_input_files(scan)
        tab.page.locator("#result").wait_for()
        expect(tab.page.locator("#file-name")).to_contain_text("scan.tiff: this browser cannot show it")
        assert list_instances(tab.page) > 0


def test_nothing_is_loaded_from_elsewhere(browser: Browser, server: GroundingServer) -> None:
    with open_tab(browser, server.url) as tab:
        find(tab.page)
        assert all(url.startswith((server.url, "blob:", "data:")) for url in tab.requests)


def test_what_is_missing_or_refused_is_said(browser: Browser, server: GroundingServer) -> None:
    with open_tab(browser, server.url, expect_errors=True) as tab:
        page, problem = tab.page, tab.page.get_by_role("alert")
        page.get_by_role("button", name="Find").click()
        expect(problem).to_have_text("Choose an image first.")
        page.get_by_label("Choose an image").set_input_files(FILE)
        page.get_by_role("button", name="Find").click()
        expect(problem).to_have_text("Say what to look for.")
        page.get_by_label("Expressions, one a line").fill("x" * 1001)
        page.get_by_role("button", name="Find").click()
        expect(problem).to_have_text("An expression has at most 1000 characters.")
        page.get_by_label("Expressions, one a line").fill("star")
        page.get_by_label("Choose an image").set_input_files(FILE | {"buffer": b"no image"})
        expect(problem).to_contain_text("not an image")


def test_a_result_that_is_no_longer_kept_goes_through_the_network_again(
    browser: Browser, guarded: GroundingServer
) -> None:
    token = {"Authorization": "Bearer secret"}
    with open_tab(browser, f"{guarded.url}#token=secret", expect_errors=True) as tab:
        find(tab.page, "the red square")
        result = guarded.predict(draw_shapes(), "the red square", headers=token, score_threshold=0.0)
        passes = guarded.ask("GET", "/health", **token).document["forward_passes"]
        tab.page.get_by_label("Score threshold").fill("0")
        (expected,) = result.document["results"]
        expect(tab.page.locator("#facts tbody tr")).to_have_count(len(expected["boxes"]))
        assert guarded.ask("GET", "/health", **token).document["forward_passes"] == passes + 1


def test_the_token_is_asked_for_or_taken_from_the_address(browser: Browser, guarded: GroundingServer) -> None:
    with open_tab(browser, guarded.url, expect_errors=True) as tab:
        for word in ("wrong", "secret"):
            tab.page.get_by_role("textbox", name="Token").fill(word)
            tab.page.get_by_role("button", name="Go on").click()
        tab.page.get_by_text("million parameters").wait_for()
        assert not any("secret" in address for address in tab.requests)
    with open_tab(browser, f"{guarded.url}#token=secret") as tab:
        find(tab.page)
        assert tab.page.url == guarded.url
