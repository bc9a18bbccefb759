"""Names of the hub, and paths that look like them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.hub.names import HubName, parse_hub_name
from pipelines.networks import resolve_checkpoint
from shards.errors import CheckpointError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("me/shapes", HubName(repo="me/shapes")),
        ("me/shapes@v1.2", HubName(repo="me/shapes", revision="v1.2")),
        ("me/shapes@refs/pr/3", HubName(repo="me/shapes", revision="refs/pr/3")),
        ("hf://me/shapes", HubName(repo="me/shapes")),
        ("hf://me/shapes@v1/a/b.pth", HubName(repo="me/shapes", file="a/b.pth", revision="v1")),
        ("hf://me/shapes/a/b.pth@refs/pr/3", HubName(repo="me/shapes", file="a/b.pth", revision="refs/pr/3")),
        (Path("hf://me/shapes/b c.pth"), HubName(repo="me/shapes", file="b c.pth")),
        ("google/owlvit-base-patch32", HubName(repo="google/owlvit-base-patch32")),
        ("models/beit3.zip", None),
        ("runs/first/", None),
        ("./me/shapes", None),
        ("../shapes", None),
        ("/me/shapes", None),
        ("~/shapes", None),
        ("a/b/c", None),
        ("shapes", None),
        ("hf://me/shapes/../../secret", None),
        ("https://huggingface.co/me/shapes", None),
    ],
)
def test_a_name_of_the_hub_is_told_from_a_path_by_its_form(name: str | Path, expected: HubName | None) -> None:
    assert parse_hub_name(name) == expected


def test_a_path_that_exists_wins_over_a_name_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "me" / "shapes").mkdir(parents=True)
    assert resolve_checkpoint("me/shapes", tmp_path) == tmp_path / "me" / "shapes"


def test_a_revision_of_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no revision v1: only hub names have revisions"):
        resolve_checkpoint(tmp_path, revision="v1")
    with pytest.raises(CheckpointError, match="me/shapes@v2 and revision v1 contradict each other"):
        resolve_checkpoint("me/shapes@v2", revision="v1")
