"""The choices of a network that stand for an idea of the paper left out: each does what it says, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.model import IGVGConfig
from pipelines.config.overrides import fingerprinted_settings
from pipelines.config.settings import TrainSettings
from pipelines.model import IGVGModel
from pipelines.model.query_generation import QueryGeneration, average_text_tokens, spread_points
from tests.support.small_network import CONFIG

TEXT = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]], [[4.0, 0.0], [0.0, 2.0], [2.0, 4.0]]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


def make_generation(**changes: object) -> QueryGeneration:
    torch.manual_seed(0)
    return QueryGeneration(replace(CONFIG, **changes)).eval()


def draw_inputs(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Text tokens of two texts of seven and five tokens, their mask, and the patch tokens of two images."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(7) < torch.tensor([[7], [5]])).long()
    return torch.randn(2, 7, 16, generator=generator), mask, torch.randn(2, 16, 16, generator=generator)


def test_without_a_text_selector_every_query_has_the_mean_of_the_tokens_that_are_no_padding() -> None:
    selected = average_text_tokens(TEXT, MASK, 2)
    assert selected.features.tolist() == [[[2.0, 4.0]] * 2, [[2.0, 2.0]] * 2]
    assert selected.mask.all()


def test_without_a_text_selector_the_mean_of_the_tokens_is_all_that_queries_have_of_them() -> None:
    text, mask, patches = draw_inputs(1)
    text, mask = text[:1], mask[:1]
    moves = torch.randn(text.shape, generator=torch.Generator().manual_seed(2))
    moved = text + moves - moves.mean(dim=1, keepdim=True)
    with torch.no_grad():
        one, other = (make_generation(text_score="none")(each, mask, patches[:1]) for each in (text, moved))
    torch.testing.assert_close(one.features, other.features)
    assert not torch.equal(one.points[0, 0], one.points[0, 1])


def test_the_grid_s_points_are_those_worked_out_by_hand() -> None:
    # Rows of 2, 3, 2 and 3 points in an 8 × 8 grid, in its rows 1, 3, 5 and 7.
    columns = {1: (2, 6), 3: (1, 4, 6), 5: (2, 6), 7: (1, 4, 6)}
    assert spread_points(10, 8) == [8 * row + column for row, found in columns.items() for column in found]


@given(st.integers(1, 20), st.data())
def test_the_grid_s_points_are_different_patches(side: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, side**2))
    found = spread_points(count, side)
    assert len(set(found)) == count
    assert all(0 <= index < side**2 for index in found)


def test_with_the_grid_points_depend_neither_on_image_nor_text_and_queries_are_made_at_them() -> None:
    generation = make_generation(point_selector="grid")
    with torch.no_grad():
        found = [generation(*draw_inputs(seed)) for seed in (1, 2)]
    expected = torch.tensor([[(i % 4 + 0.5) / 4, (i // 4 + 0.5) / 4] for i in spread_points(3, 4)])
    assert all(torch.equal(queries.points, expected.expand(2, -1, -1)) for queries in found)
    assert not torch.equal(found[0].features, found[1].features)
    # The tokens attend to the image as with selected points.
    selecting = make_generation()
    with torch.no_grad():
        assert torch.equal(selecting(*draw_inputs(1)).attention_map, found[0].attention_map)


@pytest.mark.parametrize("changes", [{"text_score": "none"}, {"text_score": "mean"}, {"point_selector": "grid"}])
def test_networks_with_and_without_a_selector_start_with_the_same_weights(changes: dict[str, object]) -> None:
    states = []
    for config in (CONFIG, replace(CONFIG, **changes)):
        torch.manual_seed(4)
        states.append(IGVGModel(config).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_checkpoint_names_the_point_selector_only_where_it_is_another(tmp_path: Path) -> None:
    for name, config in (("before", CONFIG), ("grid", replace(CONFIG, point_selector="grid"))):
        IGVGModel(config).save_pretrained(tmp_path / name)
        assert IGVGModel.from_pretrained(tmp_path / name).config == config
    before, grid = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("before", "grid"))
    assert grid == before | {"point_selector": "grid"}
    assert "point_selector" not in before


def test_a_fingerprint_names_added_settings_only_where_they_change_something() -> None:
    settings = TrainSettings()
    assert not {"init_part", "point_selector"} & {
        *fingerprinted_settings(settings),
        *fingerprinted_settings(settings)["model"],
    }
    changed = replace(settings, init_part="encoder", model=IGVGConfig(point_selector="grid"))
    assert fingerprinted_settings(changed)["init_part"] == "encoder"
    assert fingerprinted_settings(changed)["model"]["point_selector"] == "grid"
