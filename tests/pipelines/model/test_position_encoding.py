"""Position embeddings and patch filters of a fresh network."""

import math

import pytest
import torch

from pipelines.model.position_encoding import dct_patch_filters, sine_position_embedding_1d, sine_position_embedding_2d


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 1)])
def test_positions_tell_rows_in_the_first_half_and_columns_in_the_second(row: int, column: int) -> None:
    found = sine_position_embedding_2d(3, 8)[row * 3 + column]
    expected = []
    for index in (row, column):
        angle = (index + 1) / 3 * 2 * math.pi
        expected += [math.sin(angle), math.cos(angle), math.sin(angle / 100), math.cos(angle / 100)]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-5)


def test_near_text_positions_are_more_alike_than_distant_ones() -> None:
    row = sine_position_embedding_1d(30, 64)
    assert row[3] @ row[4] > row[3] @ row[6] > row[3] @ row[20]


def test_a_uniform_patch_passes_the_first_three_filters_alone() -> None:
    patch = torch.tensor([0.2, 0.5, -0.4])[:, None, None].expand(3, 6, 6)
    response = torch.einsum("kcxy,cxy->k", dct_patch_filters(30, 6), patch)
    assert response[:3].abs().min() > 0.1
    assert response[3:].abs().max() < 1e-4


def test_filters_are_orthogonal_and_their_gain_grows_with_the_frequency() -> None:
    filters = dct_patch_filters(50, 5).flatten(1)
    products = filters @ filters.T
    assert (products - products.diag().diag()).abs().max() < 1e-3
    lengths = products.diag().sqrt()
    assert (lengths[1:] >= lengths[:-1] - 1e-4).all()
    # The 17th frequency of 5 × 5 is 4: amplified (1 + 4) to the power of 1.5.
    assert (lengths[-1] / lengths[0]).item() == pytest.approx(5**1.5, rel=0.15)


def test_channels_beyond_the_frequencies_of_a_patch_are_zero() -> None:
    filters = dct_patch_filters(14, 2)
    assert filters[:12].flatten(1).any(dim=1).all()
    assert not filters[12:].any()


def test_filters_have_values_even_on_the_meta_device() -> None:
    with torch.device("meta"):
        assert dct_patch_filters(6, 2).device.type == "cpu"
