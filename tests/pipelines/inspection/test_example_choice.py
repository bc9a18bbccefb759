"""The choice of examples: even among kinds, spread over the data, the same each time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pipelines.inspection.example_choice import Choice, ShardRecords, choose_examples
from shards.reader import ShardReader
from tests.support.drawn_shards import write_shards


def list_ids(choices: list[Choice]) -> list[str]:
    return [choice.expression.id for choice in choices]


def count(choices: list[Choice]) -> dict[str, int]:
    return dict(Counter(choice.kind for choice in choices))


def test_kinds_are_even_and_ordered(tmp_path: Path) -> None:
    with ShardReader(write_shards(tmp_path, images=9), "val") as reader:
        choices = choose_examples([reader], 6)
        assert [choice.kind for choice in choices] == ["none", "none", "one", "one", "several", "several"]
        assert count(choose_examples([reader], 7)) == {"none": 3, "one": 2, "several": 2}
        assert len({choice.record.image_id for choice in choices}) == 6


def test_the_choice_is_the_same_each_time_and_from_a_tar_alone(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, images=9)
    with ShardReader(folder, "val") as reader:
        ids = list_ids(choose_examples([reader], 5))
        assert list_ids(choose_examples([reader], 5)) == ids
        assert list_ids(choose_examples([ShardRecords(folder / "val" / "val-000000.tar")], 5)) == ids


def test_of_rare_kinds_all_are_shown_and_others_fill_the_rest(tmp_path: Path) -> None:
    with ShardReader(write_shards(tmp_path, images=3, references=((0,), (1,))), "val") as reader:
        assert count(choose_examples([reader], 5)) == {"one": 5}
        assert len(choose_examples([reader], 99)) == 6
        assert len(set(list_ids(choose_examples([reader], 99)))) == 6


def test_only_known_expressions_are_chosen(tmp_path: Path) -> None:
    with ShardReader(write_shards(tmp_path, images=3), "val") as reader:
        ids = {"grefcoco/2/0", "grefcoco/3/3"}
        assert set(list_ids(choose_examples([reader], 6, ids))) == ids


def test_several_splits_take_turns(tmp_path: Path) -> None:
    with (
        ShardReader(write_shards(tmp_path / "a", images=9), "val") as one,
        ShardReader(write_shards(tmp_path / "b", images=9), "val") as other,
    ):
        choices = choose_examples([one, other], 6)
        assert {id(choice.records) for choice in choices} == {id(one), id(other)}
