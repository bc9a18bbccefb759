"""Masks as run lengths, against pycocotools and hand-drawn pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from shards import masks
from shards.errors import DataError

pixels = array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(lambda shape: arrays(np.bool_, shape))
pairs = array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))
)
coordinates = st.floats(-5, 25, allow_nan=False).map(lambda value: round(value, 2))
polygons = st.lists(
    st.integers(3, 6).flatmap(lambda n: st.lists(coordinates, min_size=2 * n, max_size=2 * n)), min_size=1, max_size=3
)


def draw(*rows: str) -> NDArray[np.bool_]:
    """A mask, # inside."""
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def count_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of a mask, column by column, the first of background."""
    runs, inside = [0], False
    for pixel in mask.T.ravel():
        if pixel != inside:
            runs.append(0)
            inside = bool(pixel)
        runs[-1] += 1
    return runs


def encode_coco(mask: NDArray[np.bool_]) -> bytes:
    counts: bytes = coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return counts


# From annotations


@given(polygons)
def test_polygons_are_united_as_pycocotools_unites_them(segmentation: list[list[float]]) -> None:
    found = masks.decode_mask(masks.encode_segmentation(segmentation, 15, 20))
    expected = coco.decode(coco.frPyObjects(segmentation, 15, 20)).any(axis=2)
    np.testing.assert_array_equal(found, expected)


def test_pixels_that_two_polygons_of_an_annotation_cover_stay_inside() -> None:
    rle = masks.encode_segmentation([[0, 0, 4, 0, 4, 4, 0, 4], [2, 0, 6, 0, 6, 4, 2, 4]], 4, 8)
    assert masks.rle_area(rle) == 6 * 4


@pytest.mark.parametrize("scrap", [[], [1, 1], [1, 1, 2, 2], [1, 1, 2, 2, 3, 3, 4]])
def test_a_polygon_with_fewer_than_three_points_or_half_a_point_is_dropped(scrap: list[float]) -> None:
    square = [0, 0, 2, 0, 2, 2, 0, 2]
    assert masks.encode_segmentation([scrap, square], 4, 4) == masks.encode_segmentation([square], 4, 4)


@pytest.mark.parametrize("segmentation", [[], [[1, 1, 2, 2]]])
def test_an_annotation_without_polygons_is_an_empty_mask(segmentation: list[list[float]]) -> None:
    rle = masks.encode_segmentation(segmentation, 3, 5)
    assert rle["size"] == [3, 5]
    assert masks.rle_area(rle) == 0


@pytest.mark.parametrize("form", ["list", "str", "bytes"])
def test_run_lengths_are_read_as_a_list_a_string_or_bytes(form: str) -> None:
    mask = draw("..#.", "###.", ".##.")
    text = encode_coco(mask)
    counts = {"list": count_runs(mask), "str": text.decode(), "bytes": text}[form]
    rle = masks.encode_segmentation({"size": [3, 4], "counts": counts}, 3, 4)
    assert rle == {"size": [3, 4], "counts": text.decode()}
    np.testing.assert_array_equal(masks.decode_mask(rle), mask)


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (None, "is of type NoneType, neither polygons nor run lengths"),
        ("M0,0", "is of type str, neither"),
        ([["a", "b", "c", "d", "e", "f"]], "not a flat list of numbers"),
        ([[[0, 0], [4, 0], [4, 4]]], "not a flat list of finite numbers"),
        ([[0, 0, 4, 0, 4, float("nan")]], "not a flat list of finite numbers"),
        ([[0, 0, 4, 0, float("inf"), 4]], "not a flat list of finite numbers"),
        ([[10**400, 0, 4, 0, 4, 4]], "not a flat list of numbers"),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], "points far beyond any image"),
        ([[0, 0, 1e6, 1e6] * 1000], "outline is far longer than any image's"),
        ({"size": [3, float("inf")], "counts": [12]}, "without size and counts"),
        ({"counts": [12]}, "without size and counts"),
        ({"size": [3, 4]}, "without size and counts"),
        ({"size": None, "counts": [12]}, "without size and counts"),
        ({"size": [4, 3], "counts": [12]}, r"size \[4, 3\] in an image of \[3, 4\]"),
        ({"size": [3, 4], "counts": [11]}, "do not add up to the 12 pixels"),
        ({"size": [3, 4], "counts": 12}, "neither a string nor a list of whole numbers"),
        ({"size": [3, 4], "counts": "\x01"}, "no compressed string"),
    ],
)
def test_a_segmentation_that_is_none_is_refused(segmentation: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        masks.encode_segmentation(segmentation, 3, 4)


# Checked before C code sees them


@given(pixels)
def test_runs_are_expanded_to_the_lengths_that_were_compressed(mask: NDArray[np.bool_]) -> None:
    assert masks.decode_rle_counts(encode_coco(mask)).tolist() == count_runs(mask)


@given(st.lists(st.integers(1, 1 << 22), min_size=1, max_size=12))
def test_long_runs_are_expanded_to_the_lengths_that_were_compressed(runs: list[int]) -> None:
    text = coco.frPyObjects({"size": [1, sum(runs)], "counts": runs}, 1, sum(runs))["counts"]
    assert masks.decode_rle_counts(text).tolist() == runs


@given(pixels)
def test_a_sound_compressed_string_stays_as_it_is(mask: NDArray[np.bool_]) -> None:
    text = encode_coco(mask).decode()
    assert masks.validate_rle(text, *mask.shape) == {"size": list(mask.shape), "counts": text}


@given(pixels)
def test_a_list_of_runs_is_compressed_as_pycocotools_does(mask: NDArray[np.bool_]) -> None:
    assert masks.validate_rle(count_runs(mask), *mask.shape)["counts"] == encode_coco(mask).decode()


def test_run_lengths_lose_their_runs_of_no_pixels() -> None:
    # COCO's merge stops where both masks have such a run.
    mask = masks.encode_segmentation({"size": [3, 4], "counts": [3, 0, 2, 5, 2]}, 3, 4)
    assert masks.decode_rle_counts(mask["counts"].encode()).tolist() == [5, 5, 2]
    assert masks.rle_area(masks.merge_rles([mask, mask], 3, 4)) == 5


@pytest.mark.parametrize(
    "counts", [[], [11], [13], [-1, 13], [6, 6.0], [True, 11], ["12"], [12, None], [1 << 70, 12 - (1 << 70)]]
)
def test_a_list_that_does_not_make_up_the_image_is_refused(counts: list[Any]) -> None:
    with pytest.raises(ValueError, match="do not add up to the 12 pixels"):
        masks.validate_rle(counts, 3, 4)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ("", "do not add up to the 12 pixels"),
        (";", "do not add up"),  # 11
        ("=", "do not add up"),  # 13
        ("0O=", "do not add up"),  # 0, -1, 13
        ("<P", "break off"),
        ("Ă", "do not add up|no compressed string"),
        ("<\x00", "no compressed string"),
        ("/", "no compressed string"),
        ("p", "no compressed string"),
        ("PPPPPP0", "beyond any image's size"),
        (None, "neither a string nor a list"),
        (12, "neither a string nor a list"),
        ({"a": 1}, "neither a string nor a list"),
    ],
)
def test_a_damaged_string_is_refused(counts: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        masks.validate_rle(counts, 3, 4)


@given(pixels, st.data())
def test_a_string_damaged_anywhere_is_refused_or_still_fills_the_image(
    mask: NDArray[np.bool_], data: st.DataObject
) -> None:
    text = bytearray(encode_coco(mask))
    place = data.draw(st.integers(0, len(text)))
    text[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        rle = masks.validate_rle(bytes(text), *mask.shape)
    except ValueError:
        return
    assert 0 <= masks.rle_area(rle) <= mask.size
    assert masks.decode_mask(rle).shape == mask.shape


@given(st.one_of(st.binary(max_size=20), st.text(max_size=20)), st.integers(1, 400))
def test_any_string_is_refused_or_makes_up_the_image(counts: bytes | str, size: int) -> None:
    try:
        rle = masks.validate_rle(counts, 1, size)
    except ValueError:
        return
    assert masks.decode_mask(rle).shape == (1, size)


# Pixels


@given(pixels)
def test_a_mask_survives_being_encoded(mask: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(masks.decode_mask(masks.encode_mask(mask)), mask)


@given(pairs)
def test_a_union_holds_the_pixels_of_either(pair: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> None:
    first, second = pair
    united = masks.merge_rles([masks.encode_mask(first), masks.encode_mask(second)], *first.shape)
    np.testing.assert_array_equal(masks.decode_mask(united), first | second)


def test_the_union_of_nothing_is_the_empty_mask_of_the_image() -> None:
    assert masks.merge_rles([], 3, 5) == masks.encode_mask(np.zeros((3, 5), dtype=bool))


@given(pairs)
def test_an_intersection_holds_the_pixels_of_both(pair: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> None:
    first, second = pair
    shared = masks.intersect_rles([masks.encode_mask(first), masks.encode_mask(second)])
    np.testing.assert_array_equal(masks.decode_mask(shared), first & second)


@given(pixels)
def test_the_area_is_the_number_of_pixels_inside(mask: NDArray[np.bool_]) -> None:
    assert masks.rle_area(masks.encode_mask(mask)) == mask.sum()


def test_the_box_ends_behind_the_last_pixel() -> None:
    mask = draw(".....", "..#..", "...#.", ".....")
    assert masks.rle_to_box(masks.encode_mask(mask)) == (2, 1, 4, 3)


def test_the_box_of_an_empty_mask_is_all_zeros() -> None:
    assert masks.rle_to_box(masks.encode_mask(np.zeros((4, 5), dtype=bool))) == (0, 0, 0, 0)


def test_resizing_takes_the_pixel_that_each_new_one_begins_in() -> None:
    mask = masks.encode_mask(draw("#..", ".#.", "..#"))
    # Columns and rows 0, 0, 1, 2, 2 … of floor(k × 3 ÷ 4) = 0, 0, 1, 2.
    expected = draw("##..", "##..", "..#.", "...#")
    np.testing.assert_array_equal(masks.decode_mask(masks.resize_mask(mask, 4, 4)), expected)


def test_resizing_down_can_lose_a_pixel() -> None:
    mask = masks.encode_mask(draw(".#..", "....", "....", "...."))
    assert masks.rle_area(masks.resize_mask(mask, 2, 2)) == 0


@given(pixels)
def test_resizing_to_the_same_size_changes_nothing(mask: NDArray[np.bool_]) -> None:
    rle = masks.encode_mask(mask)
    assert masks.resize_mask(rle, *mask.shape) == rle


@given(mask=arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40)), data=st.data())
def test_sampling_run_lengths_equals_decoding_and_taking_pixels(mask: NDArray[np.bool_], data: st.DataObject) -> None:
    height, width = mask.shape
    if data.draw(st.booleans()):
        # Long runs, as real masks have them.
        mask = mask[: 1 + height // 7, : 1 + width // 7].repeat(7, axis=0).repeat(7, axis=1)[:height, :width]
    rows, columns = (
        np.array(sorted(data.draw(st.lists(st.integers(0, side - 1), min_size=1, max_size=60)))) for side in mask.shape
    )
    np.testing.assert_array_equal(
        masks.MaskSampler(*mask.shape, rows, columns).sample(masks.encode_mask(mask)), mask[rows[:, None], columns]
    )


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("size", [3, 8, 29])
def test_empty_and_full_masks_are_sampled_at_any_size(inside: bool, size: int) -> None:
    mask = np.full((8, 11), inside)
    rows, columns = masks.nearest_indices(8, size), masks.nearest_indices(11, size)
    sampled = masks.MaskSampler(*mask.shape, rows, columns).sample(masks.encode_mask(mask))
    np.testing.assert_array_equal(sampled, np.full((size, size), inside))


def test_one_column_may_be_sampled_many_times() -> None:
    mask = draw("##.", ".#.")
    sampled = masks.MaskSampler(2, 3, np.array([0, 1, 1]), np.array([0, 0, 0, 1, 2, 2])).sample(masks.encode_mask(mask))
    np.testing.assert_array_equal(sampled, draw("####..", "...#..", "...#.."))


@pytest.mark.parametrize("counts", ["", "1", "!", "0000000", "OM"])
def test_run_lengths_that_are_no_mask_are_not_sampled(counts: str) -> None:
    with pytest.raises(DataError):
        masks.MaskSampler(3, 4, np.arange(3), np.arange(4)).sample({"size": [3, 4], "counts": counts})


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16"])
def test_an_image_is_encoded_as_its_pixels_are(mode: str) -> None:
    pixels = np.random.default_rng(0).random((700, 31)) < 0.3
    image = Image.fromarray(pixels.astype(np.uint16)) if mode == "I;16" else Image.fromarray(pixels.astype(np.uint8))
    if mode == "1":
        image = Image.fromarray(pixels)
    elif mode == "P":
        image.putpalette([9, 9, 9, 8, 8, 8])
    assert image.mode == mode
    assert masks.encode_image(image) == masks.encode_mask(pixels)
