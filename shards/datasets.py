"""The names of the published data sets, written here alone. Only the standard library is imported."""

from __future__ import annotations

from enum import StrEnum


class DatasetName(StrEnum):
    """The published data sets that `igvg prepare` reads."""

    grefcoco = "grefcoco"
    ref_zom = "ref-zom"
    rrefcoco = "rrefcoco"
    rrefcoco_plus = "rrefcoco+"
    rrefcocog = "rrefcocog"
    refcoco = "refcoco"
    refcoco_plus = "refcoco+"
    refcocog = "refcocog"

    @property
    def family(self) -> str:
        """The data set whose metrics and record format it shares: refcoco for refcoco+ and refcocog, for example."""
        return next(family for family in ("grefcoco", "ref-zom", "rrefcoco", "refcoco") if self.startswith(family))


OWN_LAYOUTS = ("jsonl", "coco")
"""What `igvg prepare` reads beside them: layouts of data sets of one's own."""
OWN_FAMILY = "grefcoco"
"""The data set whose metrics data sets of one's own share."""


def find_family(name: str) -> str:
    """The family of a data set by the name in its expressions' ids; every unpublished name is one of one's own."""
    return DatasetName(name).family if name in list(DatasetName) else OWN_FAMILY
