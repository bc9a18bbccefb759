"""Every component of `igvg ablate components` changes just the settings that it is about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.config.overrides import describe_differences, to_mapping
from pipelines.config.presets import train_preset
from pipelines.experiments.components import COMPONENTS, FULL, list_components, study_settings
from pipelines.experiments.drawn_set import DrawnSet, draw_shards
from shards.index import read_index
from shards.reader import ShardReader
from tests.support.pipeline_runs import snapshot

CHANGES = {
    "full": [],
    "point-cost": ["matching.point_cost 2.0 → 0.0"],
    "point-selector": ["model.point_selector score → grid"],
    "text-selector": ["model.text_score l2 → none"],
    "l2-score": ["model.text_score l2 → mean"],
    "reference": ["model.reference point → shifted"],
    "instance-masks": [
        "loss.instance 1.0 → 0.0", "loss.negative 0.2 → 0.0", "postprocess.mask_source merge → global",
    ],
    "instance-only": ["postprocess.mask_source merge → instance"],
    "global-only": ["postprocess.mask_source merge → global"],
    "existence-weighting": ["postprocess.existence_weighting True → False"],
}  # fmt: skip
POSTPROCESSING = {"instance-only", "global-only", "existence-weighting"}


def test_a_variant_differs_from_the_full_network_in_its_component_alone() -> None:
    settings = train_preset("tiny")
    found = {
        component.key: describe_differences(to_mapping(settings), to_mapping(component.resolve(settings)))
        for component in list_components(settings)
    }
    assert found == CHANGES


def test_variants_that_differ_in_post_processing_alone_are_not_trained() -> None:
    components = list_components(train_preset("base"))
    assert {component.key for component in components if not component.trained} == POSTPROCESSING
    assert FULL in {component.key for component in components if component.trained}
    assert len(components) == len(COMPONENTS) + 2


def test_the_other_kind_of_reference_points_is_the_variant() -> None:
    base = train_preset("base")
    for reference, other in (("shifted", "point"), ("point", "shifted")):
        settings = replace(base, model=replace(base.model, reference=reference))
        (component,) = (one for one in list_components(settings) if one.key == "reference")
        assert component.resolve(settings).model.reference == other


def test_the_study_trains_the_preset_tiny_with_other_settings_of_its_optimizer_and_start() -> None:
    tiny, study = train_preset("tiny"), study_settings()
    assert study.model == tiny.model
    assert (study.init, study.init_part) == ("shapes", "encoder")
    assert study.loss == tiny.loss
    assert study.matching == tiny.matching
    assert study.postprocess == tiny.postprocess


@pytest.fixture(scope="module")
def drawn() -> DrawnSet:
    return DrawnSet(images={"train": 6, "val": 2, "testA": 3})


def test_a_drawn_set_is_made_once_with_its_splits(tmp_path: Path, drawn: DrawnSet) -> None:
    shards = draw_shards(tmp_path, drawn)
    assert {split: len(read_index(shards, split)) for split in drawn.images} == drawn.images
    with ShardReader(shards, "testA") as reader:
        texts = [expression.text for record in reader.records() for expression in record.expressions]
    assert len(texts) > 15
    before = snapshot(tmp_path)
    assert draw_shards(tmp_path, drawn) == shards
    assert snapshot(tmp_path) == before
