"""What `igvg report` writes, opened in Chromium: the numbers of `igvg score`, texts as texts, every layer drawn."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from shards.masks import encode_mask
from shards.record import Expression, ImageRecord, Instance
from shards.writer import write_split
from tests.support.browser import launch_browser, needs_chromium, open_tab
from tests.support.drawn_shards import return_record
from tests.support.pipeline_runs import igvg
from tests.support.predicted_folders import write_predicted
from tests.support.report_data import read_index

pytestmark = needs_chromium
HEIGHT, WIDTH = 60, 80
TEXTS = (
    "nothing at all",
    "</script><script>document.title = 'broken'</script>",
    "a line\u2028separator <!-- \\u003c <img src=x onerror=\"document.title='broken'\">",
    "both of them",
)
# The fraction of the pixels of a canvas that are not transparent.
COUNT_DRAWN = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, index) => index % 4 === 3 && value > 0).length / (data.length / 4);
}"""
# Keys of the layers that are off at first.
HIDDEN_LAYERS = "agmrq"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch_browser() as launched:
        yield launched


def draw_record(image_id: int) -> ImageRecord:
    """An image with two boxes as instances, and an expression about none, each and both of them."""
    instances = []
    for box in ((5, 5, 35, 45), (45, 20, 75, 55)):
        mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        instances.append(Instance(ann_id=len(instances), category_id=1, box=box, mask=encode_mask(mask)))
    targets: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (0, 1))
    expressions = tuple(
        Expression(id=f"grefcoco/{image_id}/{n}", text=text, instances=chosen, ref_id=image_id)
        for n, (text, chosen) in enumerate(zip(TEXTS, targets, strict=True))
    )
    return ImageRecord(
        image_id=image_id, file_name=f"{image_id}.png", width=WIDTH, height=HEIGHT, instances=tuple(instances),
        expressions=expressions,
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, two sets of predictions, and their report."""
    home = tmp_path_factory.mktemp("home")
    items = []
    for image_id in (1, 2, 3):
        Image.new("RGB", (WIDTH, HEIGHT), (90, 30 * image_id, 160)).save(home / f"{image_id}.png")
        items.append((draw_record(image_id), home / f"{image_id}.png"))
    write_split(home / "shards", "val", items, return_record)
    first = write_predicted(home / "first", home / "shards", side=16, image_size=64)
    lines = [json.loads(line) for line in (first / "predictions.jsonl").read_text().splitlines()]
    boxes = [{"id": line["id"], "boxes": line["boxes"][:1]} for line in lines]
    (home / "boxes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in boxes))
    words = ("--shards", home / "shards", "--split", "val")
    result = igvg("report", first, home / "boxes.jsonl", *words, "--out", home / "report", "--bootstrap", "50")
    assert result.returncode == 0, result.stderr
    return home


def test_the_numbers_are_those_of_igvg_score(browser: Browser, home: Path) -> None:
    words = ("--shards", home / "shards", "--split", "val", "--format", "json", "--bootstrap", "50")
    with open_tab(browser, home / "report" / "index.html") as tab:
        for letter, predictions in (("A", home / "first"), ("B", home / "boxes.jsonl")):
            metrics = json.loads(igvg("score", predictions, *words).stdout)["metrics"]
            shown = tab.page.locator(f"strong[data-set={letter}]")
            assert shown.count() > 2
            for number in shown.all():
                value = metrics[number.get_attribute("data-metric")]
                expect(number).to_have_text("–" if value is None else f"{value:.2f}")


def test_every_outcome_is_counted_as_in_the_data(browser: Browser, home: Path) -> None:
    index = read_index(home / "report")
    with open_tab(browser, home / "report" / "index.html", height=4000) as tab:
        for number, result in enumerate(index["results"]):
            counts = Counter(result["outcome"])
            assert len(counts) > 2
            for outcome, count in counts.items():
                tab.page.goto(f"{tab.page.url.split('#')[0]}#?outcome={outcome.replace(' ', '%20')}&set={number}")
                expect(tab.page.get_by_role("status")).to_contain_text(str(count))
                expect(tab.page.locator(".tile a")).to_have_count(count)


def test_texts_are_texts_and_every_layer_of_every_expression_is_drawn(browser: Browser, home: Path) -> None:
    index = read_index(home / "report")
    with open_tab(browser, home / "report" / "index.html") as tab:
        title = tab.page.title()
        for id_, text in zip(index["id"], index["text"], strict=True):
            tab.page.goto(f"{tab.page.url.split('#')[0]}#{id_}")
            viewer = tab.page.locator("#viewer")
            expect(viewer.get_by_role("heading", level=2).first).to_have_text(text, use_inner_text=False)
            expect(viewer.locator("canvas").first).to_be_visible()
            # Their keys switch the layers on; the next expression keeps them.
            for key in HIDDEN_LAYERS if id_ == index["id"][0] else "":
                tab.page.keyboard.press(key)
            expect(viewer.locator("input[type=checkbox]:checked").first).to_be_visible()
            drawn = viewer.locator("canvas").first.evaluate(COUNT_DRAWN)
            # The attention map covers the image.
            assert drawn > 0.9
            assert tab.page.title() == f"{text} · {title}"
        assert tab.page.locator("img[onerror]").count() == 0


def test_a_training_alone_opens_without_a_gallery(browser: Browser, home: Path) -> None:
    (home / "run").mkdir()
    line = {"step": 20, "epoch": 0.5, "expressions_per_second": 9.0, "losses": {"total": 3.5, "classes": 1.0}}
    steps = [json.dumps(line | {"step": step}) + "\n" for step in (20, 40, 60)]
    (home / "run" / "log.jsonl").write_text("".join(steps))
    result = igvg("report", home / "run", "--out", home / "curves")
    assert result.returncode == 0, result.stderr
    with open_tab(browser, home / "curves" / "index.html") as tab:
        expect(tab.page.locator("svg").first).to_be_visible()
        assert [url for url in tab.requests if not url.endswith("index.html")] == []
