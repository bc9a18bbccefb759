"""Two servers for all tests that only ask: one as it starts by default, and one for other machines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.grounding_server import GroundingServer, run_server


@pytest.fixture(scope="session")
def server() -> Iterator[GroundingServer]:
    with run_server() as running:
        yield running


@pytest.fixture(scope="session")
def guarded() -> Iterator[GroundingServer]:
    """A server that needs the token `secret`, and keeps one result."""
    with run_server("--host", "0.0.0.0", "--set", "kept_results=1", IGVG_SERVE_TOKEN="secret") as running:
        running.url = f"http://127.0.0.1:{running.port}/"
        yield running
