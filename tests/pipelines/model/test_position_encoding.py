"""What a fresh network starts from."""

import math

import pytest
import torch

from pipelines.model.position_encoding import build_patch_waves, build_position_map, build_position_row


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 1)])
def test_positions_tell_rows_in_the_first_half_and_columns_in_the_second(row: int, column: int) -> None:
    found = build_position_map(3, 8)[row * 3 + column]
    expected = []
    for place in (row, column):
        angle = (place + 1) / 3 * 2 * math.pi
        expected += [math.sin(angle), math.cos(angle), math.sin(angle / 100), math.cos(angle / 100)]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-5)


def test_words_that_stand_near_have_more_alike_positions_than_words_far_apart() -> None:
    row = build_position_row(30, 64)
    assert row[3] @ row[4] > row[3] @ row[6] > row[3] @ row[20]


def test_an_even_patch_is_seen_by_the_first_three_waves_alone() -> None:
    patch = torch.tensor([0.2, 0.5, -0.4])[:, None, None].expand(3, 6, 6)
    seen = torch.einsum("kcxy,cxy->k", build_patch_waves(30, 6), patch)
    assert seen[:3].abs().min() > 0.1
    assert seen[3:].abs().max() < 1e-4


def test_waves_are_orthogonal_and_grow_with_their_frequency() -> None:
    waves = build_patch_waves(50, 5).flatten(1)
    products = waves @ waves.T
    assert (products - products.diag().diag()).abs().max() < 1e-3
    lengths = products.diag().sqrt()
    assert (lengths[1:] >= lengths[:-1] - 1e-4).all()
    # The 17th wave of 5 × 5 has a frequency of 4: amplified (1 + 4) to the power of 1.5.
    assert (lengths[-1] / lengths[0]).item() == pytest.approx(5**1.5, rel=0.15)


def test_channels_beyond_the_waves_of_a_patch_start_at_zero() -> None:
    waves = build_patch_waves(14, 2)
    assert waves[:12].flatten(1).any(dim=1).all()
    assert not waves[12:].any()


def test_a_network_without_memory_can_be_described_on_the_meta_device() -> None:
    with torch.device("meta"):
        assert build_patch_waves(6, 2).device.type == "cpu"
