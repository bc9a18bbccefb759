"""Charts of a study of components: what they show, in colors of their own."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from pipelines.config.presets import train_preset
from pipelines.evaluation.seed_differences import SeedDifference
from pipelines.experiments.component_charts import draw_component_curves, draw_component_differences
from pipelines.experiments.component_scores import DatasetScores, SeedScore, VariantScores
from pipelines.experiments.components import FULL, Component, list_components

METRICS = ("gIoU", "cIoU", "F1score")


def make_variant(index: int, component: Component) -> VariantScores:
    curves = [[[100.0, 20.0 + seed], [200.0, 30.0 + index + seed]] if component.trained else [] for seed in range(3)]
    difference = SeedDifference(mean=-1.0, interval=[-2.0, 0.5], by_seed=[-1.0] * 3)
    return VariantScores(
        key=component.key, title=component.title, instead=component.instead, trained=component.trained,
        seeds=[SeedScore(seed=n, checkpoint="", predictions="", metrics={}, curve=c) for n, c in enumerate(curves)],
        mean=dict.fromkeys(METRICS, 40.0),
        differences=None if component.key == FULL else dict.fromkeys(METRICS, difference),
    )  # fmt: skip


@pytest.fixture(scope="module")
def scores() -> DatasetScores:
    variants = [make_variant(n, one) for n, one in enumerate(list_components(train_preset("tiny")))]
    return DatasetScores(
        dataset="grefcoco", split="testA", expressions=9, images=3, curve_metric="gIoU", variants=variants
    )


def list_texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]


def test_curves_have_a_panel_for_every_variant_that_was_trained(scores: DatasetScores) -> None:
    texts = list_texts(draw_component_curves(scores))
    titles = [f"without {one.title}" for one in scores.variants if one.trained and one.key != FULL]
    assert [text for text in texts if text.startswith("without ")] == titles
    assert {"full network", "without", "step", "gIoU, percent"} <= set(texts)


def test_differences_have_a_row_for_every_variant_and_two_for_the_merge_of_masks(scores: DatasetScores) -> None:
    texts = list_texts(draw_component_differences(scores))
    assert {*METRICS, "point cost", "instance masks alone", "the global mask alone", "existence weighting"} <= set(
        texts
    )
    assert "merge of masks" not in texts


@pytest.mark.parametrize("draw", [draw_component_curves, draw_component_differences])
def test_a_chart_stands_alone_on_light_and_dark_pages(scores: DatasetScores, draw: object) -> None:
    assert callable(draw)
    svg = draw(scores)
    assert "prefers-color-scheme: dark" in svg
    root = ET.fromstring(svg)
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
    used = {value[4:-1] for element in root.iter() for value in element.attrib.values() if value.startswith("var(")}
    style = root.findtext("{http://www.w3.org/2000/svg}style") or ""
    assert used
    assert all(f"{name}: #" in style for name in used), used
