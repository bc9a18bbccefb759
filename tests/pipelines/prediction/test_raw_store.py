"""What was stored comes back, in order, whole or not at all, and is small."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.config.settings import PostprocessSettings
from pipelines.model.igvg import IGVGOutput
from pipelines.prediction.postprocess import postprocess
from pipelines.prediction.raw_output import (
    MASK_FLOOR,
    RawOutput,
    effective_mask_floor,
    normalize_attention,
    unpack_output,
)
from pipelines.prediction.raw_store import RawReader, RawWriter, check_mask_floor, locate_chunk, read_chunk
from shards.errors import DataError, NonFiniteError, SettingsError
from tests.support.drawn_outputs import draw_output

IDS = [f"shapes/{index}/0" for index in range(5)]
SIZES = [(20 + index, 30) for index in range(5)]


def make_output(images: int = 5, queries: int = 4, side: int = 8, seed: int = 0) -> IGVGOutput:
    generator = torch.Generator().manual_seed(seed)
    return IGVGOutput(
        class_logits=8 * torch.randn(images, queries, 2, generator=generator),
        boxes=torch.rand(images, queries, 4, generator=generator),
        points=torch.rand(images, queries, 2, generator=generator),
        instance_mask_logits=torch.randn(images, queries, side, side, generator=generator),
        global_mask_logits=torch.randn(images, 1, side, side, generator=generator),
        existence_logits=torch.randn(images, 2, generator=generator),
        attention_map=torch.rand(images, side // 4, side // 4, generator=generator),
        aux_class_logits=[],
        aux_boxes=[],
    )


def make_outputs(**changes: Any) -> list[RawOutput]:
    return unpack_output(make_output(**changes), IDS, SIZES, image_size=32)


def assert_equal(first: RawOutput, second: RawOutput) -> None:
    for field in dataclasses.fields(RawOutput):
        one, other = getattr(first, field.name), getattr(second, field.name)
        assert np.array_equal(one, other), field.name
        assert getattr(one, "dtype", None) == getattr(other, "dtype", None), field.name


def test_a_batch_is_unpacked_expression_by_expression() -> None:
    output = make_output()
    for row, raw in enumerate(make_outputs()):
        assert (raw.id, raw.original_size, raw.image_size) == (IDS[row], SIZES[row], 32)
        assert np.array_equal(raw.boxes, output.boxes[row].numpy())
        assert np.array_equal(raw.global_mask_logits, output.global_mask_logits[row, 0].half().numpy())
        kept = output.class_logits[row].softmax(dim=-1)[:, 0].numpy() > MASK_FLOOR
        assert raw.mask_queries.tolist() == np.flatnonzero(kept).tolist()
        assert np.array_equal(raw.instance_mask_logits, output.instance_mask_logits[row].half().numpy()[kept])
        assert raw.attention_map is not None
        relative = output.attention_map[row].numpy() / output.attention_map[row].max().item()
        assert np.abs(raw.attention_map / 255 - relative).max() <= 0.5 / 255 + 1e-6
    assert sum(len(raw.mask_queries) for raw in make_outputs()) < 5 * 4


def test_sizes_may_come_as_a_tensor_and_outputs_in_half_precision_with_gradients() -> None:
    output = make_output()
    output = dataclasses.replace(output, boxes=output.boxes.bfloat16().requires_grad_())
    raw = unpack_output(output, IDS, torch.tensor(SIZES), image_size=32)[3]
    assert raw.original_size == (23, 30)
    assert type(raw.original_size[0]) is int
    assert raw.boxes.dtype == np.float32


def test_no_mask_is_dropped_where_the_floor_is_below_all_scores() -> None:
    outputs = unpack_output(make_output(), IDS, SIZES, image_size=32, mask_floor=-1.0)
    assert all(raw.mask_queries.tolist() == [0, 1, 2, 3] for raw in outputs)


def test_logits_too_large_for_half_precision_stay_finite() -> None:
    output = make_output()
    output.global_mask_logits[0, 0, 0, :2] = torch.tensor([1e6, -1e6])
    raw = unpack_output(output, IDS, SIZES, image_size=32)[0]
    assert raw.global_mask_logits[0, :2].tolist() == [60000, -60000]


def test_attention_is_kept_in_steps_of_its_highest_value() -> None:
    maps = np.array([[[0.2, 0.1], [0.0, 0.05]], [[0.0, 0.0], [0.0, 0.0]]], dtype=np.float32)
    assert normalize_attention(maps).tolist() == [[[255, 128], [0, 64]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize("name", ["class_logits", "boxes", "existence_logits", "global_mask_logits", "attention_map"])
def test_an_output_that_is_not_finite_is_an_error_that_names_it(name: str) -> None:
    output = make_output()
    getattr(output, name)[1, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=f"the network's {name} are not finite"):
        unpack_output(output, IDS, SIZES, image_size=32)


def test_a_chunk_comes_back_as_it_was_written(tmp_path: Path) -> None:
    outputs = make_outputs()
    for first, second in zip(outputs, read_chunk(RawWriter(tmp_path).write_chunk(0, outputs)), strict=True):
        assert_equal(first, second)


def test_a_chunk_without_a_single_instance_mask_comes_back_too(tmp_path: Path) -> None:
    outputs = unpack_output(make_output(), IDS, SIZES, image_size=32, mask_floor=1.0)
    read = read_chunk(RawWriter(tmp_path).write_chunk(0, outputs))
    assert all(raw.instance_mask_logits.shape == (0, 8, 8) for raw in read)
    assert_equal(outputs[4], read[4])


def test_the_same_outputs_give_the_same_bytes(tmp_path: Path) -> None:
    writer = RawWriter(tmp_path)
    assert writer.write_chunk(0, make_outputs()).read_bytes() == writer.write_chunk(1, make_outputs()).read_bytes()


def test_chunks_of_several_processes_are_read_in_order(tmp_path: Path) -> None:
    outputs = make_outputs()
    one, other = RawWriter(tmp_path / "raw"), RawWriter(tmp_path / "raw")
    other.write_chunk(1, outputs[2:4])
    one.write_chunk(2, outputs[4:])
    assert one.finished_chunks() == {1, 2}
    one.write_chunk(0, outputs[:2])
    one.finish()
    reader = RawReader(tmp_path / "raw")
    assert len(reader) == 5
    assert [raw.id for raw in reader] == IDS
    assert {file.name for file in (tmp_path / "raw").iterdir()} == {
        *(f"chunk-00000{n}.npz" for n in range(3)),
        "index.json",
    }


def test_stored_outputs_give_the_result_of_the_outputs_themselves(tmp_path: Path) -> None:
    outputs = make_outputs()
    RawWriter(tmp_path).write_chunk(0, outputs)
    settings = PostprocessSettings(score_threshold=0.3)
    for first, second in zip(outputs, read_chunk(locate_chunk(tmp_path, 0)), strict=True):
        assert np.array_equal(postprocess(first, settings).mask, postprocess(second, settings).mask)
        assert np.array_equal(postprocess(first, settings).boxes, postprocess(second, settings).boxes)


def test_an_expression_of_the_base_model_takes_less_than_60_kilobytes(tmp_path: Path) -> None:
    output = make_output(queries=10, side=80)
    rows, columns = np.mgrid[:80, :80]
    rng = np.random.default_rng(0)
    for row in range(5):
        # Three confident queries and two doubtful ones; masks are discs with noise of the size seen in the references.
        output.class_logits[row] = torch.tensor([[3.0, 0]] * 3 + [[-2.0, 0]] * 2 + [[-6.0, 0]] * 5)
        for mask in (*output.instance_mask_logits[row], output.global_mask_logits[row, 0]):
            distance = np.hypot(
                *(axis - center for axis, center in zip((rows, columns), rng.uniform(20, 60, 2), strict=True))
            )
            mask.copy_(torch.from_numpy(8 * np.tanh((15 - distance) / 3) + rng.normal(0, 0.4, (80, 80))))
    file = RawWriter(tmp_path).write_chunk(0, unpack_output(output, IDS, SIZES, image_size=320))
    assert file.stat().st_size / len(IDS) < 60_000


def test_attention_adds_less_than_5_percent_to_outputs_of_the_base_model(tmp_path: Path) -> None:
    # One in ten queries keeps its mask: fewer than the trained networks' do.
    outputs = [
        draw_output(f"a/{n}/0", (480, 640), n, queries=10, side=80, image_size=320, no_object_bias=4.5)
        for n in range(32)
    ]
    without = [dataclasses.replace(output, attention_map=None) for output in outputs]
    assert 0.5 < np.mean([len(output.mask_queries) for output in outputs]) < 2
    writer = RawWriter(tmp_path)
    larger, smaller = (writer.write_chunk(n, each).stat().st_size for n, each in enumerate((outputs, without)))
    assert smaller < larger < 1.05 * smaller


def test_a_chunk_of_an_earlier_version_has_no_attention_and_is_read(tmp_path: Path) -> None:
    outputs = [dataclasses.replace(output, attention_map=None) for output in make_outputs()]
    file = RawWriter(tmp_path).write_chunk(0, outputs)
    with np.load(file) as archive:
        assert "attention_map" not in archive
    for first, second in zip(outputs, read_chunk(file), strict=True):
        assert_equal(first, second)


def test_chunks_with_and_without_attention_lie_in_one_folder(tmp_path: Path) -> None:
    outputs = make_outputs()
    writer = RawWriter(tmp_path)
    writer.write_chunk(0, [dataclasses.replace(output, attention_map=None) for output in outputs[:2]])
    writer.write_chunk(1, outputs[2:])
    writer.finish()
    assert [output.attention_map is None for output in RawReader(tmp_path)] == [True, True, False, False, False]


def test_a_missing_chunk_between_others_is_named(tmp_path: Path) -> None:
    writer = RawWriter(tmp_path)
    writer.write_chunk(0, make_outputs())
    writer.write_chunk(2, make_outputs())
    with pytest.raises(DataError, match=r"chunk 1 is missing; run igvg predict again"):
        writer.finish()


def test_an_unfinished_folder_is_not_read(tmp_path: Path) -> None:
    RawWriter(tmp_path).write_chunk(0, make_outputs())
    with pytest.raises(DataError, match=r"index\.json: no raw outputs, or unfinished ones; run igvg predict"):
        RawReader(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "damaged"),
        ('{"format": 2}', "damaged"),
        ("[" * 100_000, "damaged"),
        ('{"format": 2, "chunks": [1e999], "expressions": 1, "mask_floor": 0}', "damaged"),
        ('{"format": 2, "chunks": [-12], "expressions": -12, "mask_floor": 0}', "damaged"),
        ('{"format": 2, "chunks": [2.9], "expressions": 2, "mask_floor": 0}', "damaged"),
        ('{"format": 2, "chunks": [5], "expressions": 99, "mask_floor": 0}', "chunks hold 5 expressions, not 99"),
        ('{"format": 2, "chunks": [5], "expressions": 5, "mask_floor": NaN}', "mask_floor is not a number from 0 to 1"),
        ('{"format": 2, "chunks": [5], "expressions": 5, "mask_floor": -3}', "mask_floor is not a number from 0 to 1"),
        ('{"format": 1, "chunks": []}', "format 1 of raw outputs; this igvg reads 2"),
    ],
)
def test_an_index_that_cannot_be_read_is_an_error(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(DataError, match=rf"index\.json.*{words}"):
        RawReader(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flip", "text", "gone"])
def test_a_damaged_chunk_is_named_and_never_half_read(tmp_path: Path, damage: str) -> None:
    writer = RawWriter(tmp_path)
    file = writer.write_chunk(0, make_outputs())
    writer.finish()
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "flip":
        data[200] ^= 0xFF
        file.write_bytes(data)
    else:
        file.write_bytes(b"hello" if damage == "text" else data[: len(data) // 2])
    with pytest.raises(
        DataError,
        match=r"chunk-000000\.npz: (missing|is damaged or cut short|is text that begins).*delete it and run",
    ):
        list(RawReader(tmp_path))


def corrupt(arrays: dict[str, Any], how: str) -> dict[str, Any]:
    name, _, what = how.partition(" ")
    array = arrays[name]
    match what:
        case "NaN":
            corrupted = np.where(np.ones_like(array), np.nan, array).astype(array.dtype)
        case "short":
            corrupted = array[..., :-1]
        case "fewer":
            corrupted = array[:-1]
        case "flat":
            corrupted = array.reshape(-1)
        case "double":
            corrupted = array.astype(np.float64)
        case "text":
            corrupted = array.astype(str)
        case "zero":
            corrupted = np.zeros_like(array)
        case "reversed":
            corrupted = array[::-1]
        case "beyond":
            corrupted = array + 100
        case _:
            # The exponent of infinity.
            corrupted = np.full_like(array, 0x7C)
    return arrays | {name: corrupted}


@pytest.mark.parametrize(
    "how",
    ["class_logits NaN", "boxes NaN", "existence_logits NaN", "points NaN", "boxes short", "boxes flat", "boxes text",
     "class_logits fewer", "class_logits double", "class_logits text", "global_mask_logits double",
     "global_mask_logits flat", "global_mask_logits infinite", "instance_mask_logits infinite",
     "instance_mask_logits short", "mask_owners flat", "mask_owners reversed", "mask_owners beyond",
     "picture_size zero", "original_sizes zero", "original_sizes fewer", "ids fewer", "ids flat",
     "attention_map flat", "attention_map fewer", "attention_map double"],
)  # fmt: skip
def test_arrays_that_igvg_does_not_write_are_named(tmp_path: Path, how: str) -> None:
    file = RawWriter(tmp_path).write_chunk(0, make_outputs())
    with np.load(file) as archive:
        arrays = dict(archive)
    if how == "ids flat":
        arrays["ids"] = arrays["ids"][:, None]
    else:
        arrays = corrupt(arrays, how)
    np.savez(file, **arrays)
    with pytest.raises(DataError, match=r"chunk-000000\.npz: no readable chunk \(\w+ is not what igvg writes\)"):
        read_chunk(file)


def test_a_chunk_of_another_length_than_the_index_says_is_an_error(tmp_path: Path) -> None:
    writer = RawWriter(tmp_path)
    writer.write_chunk(0, make_outputs())
    writer.finish()
    writer.write_chunk(0, make_outputs()[:3])
    with pytest.raises(DataError, match=r"chunk-000000\.npz: 3 expressions instead of 5"):
        list(RawReader(tmp_path))


def test_the_index_counts_expressions(tmp_path: Path) -> None:
    writer = RawWriter(tmp_path)
    writer.finish()
    assert len(RawReader(tmp_path)) == 0
    writer.write_chunk(0, make_outputs())
    writer.finish()
    index = json.loads((tmp_path / "index.json").read_text())
    assert index == {"format": 2, "expressions": 5, "mask_floor": MASK_FLOOR, "chunks": [5]}


def test_a_lower_score_threshold_keeps_what_it_may_choose_and_the_index_says_so(tmp_path: Path) -> None:
    assert effective_mask_floor(0.7) == MASK_FLOOR
    assert effective_mask_floor(0.01) == 0.01
    RawWriter(tmp_path, effective_mask_floor(0.01)).finish()
    assert RawReader(tmp_path).mask_floor == 0.01


def test_a_query_at_the_floor_keeps_no_mask_and_one_above_it_does() -> None:
    output = make_output()
    output.class_logits[0] = torch.tensor([[0.0, 0.0], [0.001, 0.0], [-5.0, 0.0], [5.0, 0.0]])
    raw = unpack_output(output, IDS, SIZES, image_size=32, mask_floor=0.5)[0]
    assert raw.mask_queries.tolist() == [1, 3]


def test_a_low_threshold_is_refused_only_where_it_asks_for_masks_that_were_not_kept() -> None:
    check_mask_floor([], 0.1)
    check_mask_floor([PostprocessSettings(score_threshold=0.1), PostprocessSettings(score_threshold=0.4)], 0.1)
    check_mask_floor([PostprocessSettings(score_threshold=0.0, mask_source="global")], 0.1)
    for source in ("merge", "instance"):
        low = PostprocessSettings(score_threshold=0.09, mask_source=source)
        with pytest.raises(SettingsError, match=r"score_threshold 0\.09: .* above 0\.1; set it to 0\.1 or more"):
            check_mask_floor([PostprocessSettings(), low], 0.1)
