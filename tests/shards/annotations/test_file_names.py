"""Published names of images stay inside the folder that they are looked up in."""

from __future__ import annotations

import pytest

from shards.annotations.file_names import base_name, full_name


@pytest.mark.parametrize(
    ("published", "full", "base"),
    [
        ("1.jpg", "1.jpg", "1.jpg"),
        ("train2014/1.jpg", "train2014/1.jpg", "1.jpg"),
        ("train2014\\1.jpg", "train2014/1.jpg", "1.jpg"),
        ("./a//1.jpg", "a/1.jpg", "1.jpg"),
        ("../1.jpg", "1.jpg", "1.jpg"),
        ("a/../../1.jpg", "1.jpg", "1.jpg"),
        ("/data/1.jpg", "1.jpg", "1.jpg"),
    ],
)
def test_a_name_keeps_its_folders_unless_they_lead_out(published: str, full: str, base: str) -> None:
    assert (full_name(published), base_name(published)) == (full, base)
