"""`make test-lowest` installs the lower bound of every dependency, those of extras among them."""

from __future__ import annotations

from tests.support.lowest_versions import list_lowest


def test_every_dependency_that_the_tests_need_has_a_lower_bound() -> None:
    lowest = list_lowest()
    assert {"torch", "pytest", "s3fs", "fastapi", "zensical"} <= lowest.keys()
    assert "igvg" not in lowest
    assert all(version[0].isdecimal() for version in lowest.values())
