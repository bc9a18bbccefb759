"""The embedded data set: what is said is true, what is drawn is what is annotated, and nothing leaks between splits."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import ndimage

from shards.masks import decode_mask, encode_segmentation
from shards.synthetic.expressions import sample_empty_query, sample_query
from shards.synthetic.levels import COLORS, STANDARD
from shards.synthetic.polygons import mask_to_polygons
from shards.synthetic.queries import Description, Query, find_targets
from shards.synthetic.scenes import Scene, SceneObject, render_scene, sample_scene, visible_masks
from shards.synthetic.writer import write_published, write_refcoco


def place(shape: str, color: str, size: str, x: float, y: float) -> SceneObject:
    return SceneObject(shape=shape, color=color, size=size, x=x, y=y, radius=5, angle=0)


# A red star to the left, two small circles in the middle and to the right, a large square above them.
SCENE = Scene(
    100,
    100,
    (
        place("star", "red", "large", 10, 50),
        place("circle", "blue", "small", 50, 60),
        place("circle", "green", "small", 90, 62),
        place("square", "blue", "large", 52, 20),
    ),
    np.zeros((4, 100, 100), dtype=bool),
)
CIRCLES, STARS, SQUARE = Description("circle"), Description("star"), Description("square")


@pytest.mark.parametrize(
    ("query", "expression", "answer"),
    [
        (Query(STARS, "plain"), "the star", (0,)),
        (Query(CIRCLES, "plain"), "the circle", None),
        (Query(Description("triangle"), "plain"), "the triangle", ()),
        (Query(Description(None, "blue"), "every"), "every blue shape", (1, 3)),
        (Query(Description("circle", None, "small"), "every", wording=1), "all small circles", (1, 2)),
        (Query(CIRCLES, "count", 2), "the two circles", (1, 2)),
        (Query(CIRCLES, "count", 3), "the three circles", None),
        (Query(Description("circle", "red"), "count", 2), "the two red circles", ()),
        (Query(CIRCLES, "extreme", direction="right"), "the rightmost circle", (2,)),
        (Query(CIRCLES, "extreme", direction="bottom"), "the lowest circle", None),
        (Query(STARS, "extreme", direction="left"), "the leftmost star", None),
        (Query(CIRCLES, "relation", 2, "bottom", SQUARE), "the two circles below the square", (1, 2)),
        (Query(CIRCLES, "relation", 1, "right", SQUARE), "the circle right of the square", None),
        (Query(STARS, "relation", 1, "left", SQUARE), "the star left of the square", (0,)),
        (Query(STARS, "relation", 1, "right", SQUARE), "the star right of the square", ()),
        (Query(STARS, "relation", 1, "left", CIRCLES), "the star left of the circle", None),
    ],
)
def test_a_query_says_what_it_asks_and_the_scene_answers(
    query: Query, expression: str, answer: tuple[int, ...] | None
) -> None:
    assert query.text() == expression
    assert find_targets(query, SCENE) == answer


@given(st.integers(0, 2**32 - 1))
def test_true_queries_are_answered_and_false_ones_are_one_word_away_from_true(seed: int) -> None:
    random = np.random.default_rng(seed)
    scene = sample_scene(random)
    true, false = sample_query(scene, random), sample_empty_query(scene, random)
    assert true is None or find_targets(true, scene)
    if false is not None:
        assert find_targets(false, scene) == ()
        assert any(find_targets(neighbor, scene) for neighbor in list_neighbors(false))


@given(st.integers(0, 2**32 - 1))
def test_a_query_for_one_object_refers_to_that_object_alone(seed: int) -> None:
    random = np.random.default_rng(seed)
    scene = sample_scene(random)
    target = int(random.integers(len(scene.objects)))
    query = sample_query(scene, random, target)
    assert query is None or find_targets(query, scene) == (target,)


def list_neighbors(query: Query) -> list[Query]:
    opposite: dict[str, Any] = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    neighbors = [replace(query, direction=opposite[query.direction])]
    for name, choices in (("shape", STANDARD.shapes), ("color", STANDARD.colors), ("size", STANDARD.sizes)):
        if getattr(query.description, name):
            neighbors += [
                replace(query, description=replace(query.description, **{name: choice})) for choice in choices
            ]
    return neighbors


@given(st.integers(0, 2**32 - 1))
def test_most_of_every_object_is_visible_and_no_pixel_belongs_to_two(seed: int) -> None:
    scene = sample_scene(np.random.default_rng(seed))
    assert scene.visible.sum(axis=0).max() <= 1
    alone = scene.visible.sum(axis=(1, 2))
    for obj, pixels in zip(scene.objects, alone, strict=True):
        fill = {"circle": 3.14, "square": 2.0, "triangle": 1.3, "star": 1.1}[obj.shape]
        assert pixels > 0.5 * fill * obj.radius**2


def test_what_lies_above_hides_what_lies_below() -> None:
    covers = np.array([[[1, 1, 1]], [[0, 1, 0]], [[0, 1, 1]]], dtype=bool)
    assert visible_masks(covers).tolist() == [
        [[True, False, False]],
        [[False, False, False]],
        [[False, True, True]],
    ]


def test_an_image_shows_objects_in_their_colors() -> None:
    random = np.random.default_rng(3)
    scene = sample_scene(random)
    image = np.asarray(render_scene(scene, random), dtype=int)
    assert image.shape == (scene.height, scene.width, 3)
    for obj, visible in zip(scene.objects, scene.visible, strict=True):
        assert np.abs(np.median(image[visible], axis=0) - COLORS[obj.color]).max() < 25


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_outlines_give_their_mask_back_or_refuse_a_hole(mask: np.ndarray) -> None:
    if count_holes(mask):
        with pytest.raises(ValueError, match="hole"):
            mask_to_polygons(mask)
    else:
        assert np.array_equal(decode_mask(encode_segmentation(mask_to_polygons(mask), *mask.shape)), mask)


def count_holes(mask: np.ndarray) -> int:
    """Parts of the outside that do not reach the border; pixels of the outside also touch at corners."""
    _, parts = ndimage.label(~np.pad(mask, 1), structure=np.ones((3, 3)))
    return parts - 1


def test_a_ring_has_a_hole() -> None:
    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    with pytest.raises(ValueError, match="hole"):
        mask_to_polygons(ring)


def test_the_same_seed_writes_the_same_files_with_any_number_of_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        write_published(tmp_path / str(workers), seed=1, train_images=60, held_out_images=5, workers=workers)
    one, two = (
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in (tmp_path / "1", tmp_path / "2")
    )
    assert one == two


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    write_published(folder, seed=5, train_images=40, held_out_images=8)
    return folder


def read_refs(folder: Path, dataset: str) -> list[dict[str, Any]]:
    if dataset == "grefcoco":
        refs: list[dict[str, Any]] = json.loads((folder / dataset / "grefs(unc).json").read_text())
        return refs
    name = "refs(final).p" if dataset == "ref-zom" else "refs(unc).p"
    return pickle.loads((folder / dataset / name).read_bytes())


def test_no_image_is_in_two_splits_or_data_sets(published: Path) -> None:
    homes: dict[int, set[tuple[str, str]]] = {}
    for dataset in ("grefcoco", "ref-zom", "rrefcoco"):
        for ref in read_refs(published, dataset):
            homes.setdefault(ref["image_id"], set()).add((dataset, ref["split"]))
    assert all(len(home) == 1 for home in homes.values())
    splits = {home for found in homes.values() for home in found}
    assert splits == {(d, s) for d, h in (("grefcoco", "val"), ("ref-zom", "test"), ("rrefcoco", "val"))
                      for s in ("train", h)}  # fmt: skip


def test_empty_targets_are_written_in_each_data_sets_own_way(published: Path) -> None:
    grefs, zom, robust = (read_refs(published, dataset) for dataset in ("grefcoco", "ref-zom", "rrefcoco"))
    empty = [ref for ref in grefs if ref["ann_id"] == [-1]]
    assert 0.1 < len(empty) / len(grefs) < 0.4
    assert all(-1 not in ref["ann_id"] for ref in grefs if ref not in empty)
    assert {(ref["source"], min(2, len(ref["ann_id"]))) for ref in zom} == {("zero", 0), ("one", 1), ("many", 2)}
    assert all({sentence["exist"] for sentence in ref["sentences"]} == {True, False} for ref in robust)


def test_annotations_are_the_visible_pixels_of_images_that_are_there(published: Path) -> None:
    document = json.loads((published / "grefcoco" / "instances.json").read_text())
    sizes = {}
    for image in document["images"]:
        with Image.open(published / "images/train2014" / image["file_name"]) as drawn:
            assert drawn.size == (image["width"], image["height"])
        sizes[image["id"]] = image["height"], image["width"]
    for annotation in document["annotations"]:
        mask = decode_mask(encode_segmentation(annotation["segmentation"], *sizes[annotation["image_id"]]))
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert mask.sum() == annotation["area"]
        assert box == annotation["bbox"]


@pytest.fixture(scope="module")
def refcoco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refcoco")
    write_refcoco(folder, seed=5, train_images=30, held_out_images=5)
    return folder


def test_every_expression_of_refcoco_has_the_one_object_of_its_ref_as_target(refcoco: Path) -> None:
    refs = read_refs(refcoco, "refcoco")
    document = json.loads((refcoco / "refcoco" / "instances.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    shapes: dict[int, list[str]] = {}
    for annotation in document["annotations"]:
        shapes.setdefault(annotation["image_id"], []).append(names[annotation["category_id"]])
    assert {ref["split"] for ref in refs} == {"train", "val"}
    assert all(isinstance(ref["ann_id"], int) for ref in refs)
    assert all("exist" not in sentence for ref in refs for sentence in ref["sentences"])
    split_outcomes = 0
    for ref in refs:
        shape = names[ref["category_id"]]
        for sentence in ref["sentences"]:
            # A shape named without any other attribute is the only one of its kind in the image.
            if sentence["sent"] in (shape, f"the {shape}", f"every {shape}", f"all {shape}s", f"all the {shape}s"):
                assert shapes[ref["image_id"]].count(shape) == 1
                split_outcomes += 1
    assert split_outcomes


def test_images_of_refcoco_have_ids_that_no_other_layout_uses(refcoco: Path, published: Path) -> None:
    ids = {ref["image_id"] for ref in read_refs(refcoco, "refcoco")}
    others = {
        ref["image_id"] for dataset in ("grefcoco", "ref-zom", "rrefcoco") for ref in read_refs(published, dataset)
    }
    assert min(ids) >= 500_000 > max(others)


def test_refcoco_and_the_generalized_layouts_show_other_images_under_one_seed(refcoco: Path, published: Path) -> None:
    one, two = (
        {file.read_bytes() for file in (folder / "images" / "train2014").iterdir()} for folder in (refcoco, published)
    )
    assert not one & two
