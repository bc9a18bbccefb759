from __future__ import annotations

from shards.annotations.drafts import DATASETS
from shards.datasets import DatasetName


def test_every_name_belongs_to_the_family_whose_metrics_it_shares() -> None:
    assert {name.value: name.family for name in DatasetName} == {
        "grefcoco": "grefcoco",
        "ref-zom": "ref-zom",
        "rrefcoco": "rrefcoco",
        "rrefcoco+": "rrefcoco",
        "rrefcocog": "rrefcoco",
        "refcoco": "refcoco",
        "refcoco+": "refcoco",
        "refcocog": "refcoco",
    }


def test_the_files_of_every_data_set_are_known() -> None:
    assert list(DATASETS) == [name.value for name in DatasetName]
