"""Requests drawn from the server's OpenAPI description: none ends in a status that the description does not know.

`make test-api` runs a thousand of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.drawn_images import draw_shapes
from tests.support.grounding_server import GroundingServer, run_server

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance, negative_data_rejection,
]  # fmt: skip
IMAGES = [draw_shapes(kind=kind) for kind in ("png", "jpeg", "gif")] + [draw_shapes()[:200], b"GIF89a", b""]


@pytest.fixture(scope="module")
def server() -> Iterator[GroundingServer]:
    with run_server("--set", "max_upload_mebibytes=1") as running:
        yield running


def draw_case(data: st.DataObject, operations: list[Any], result: str) -> Any:
    """A request, in half of all cases one that means something: a readable image, a result that is kept."""
    mode = data.draw(st.sampled_from([schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]))
    case = data.draw(data.draw(st.sampled_from(operations)).as_strategy(generation_mode=mode))
    if data.draw(st.booleans()) and mode == schemathesis.GenerationMode.POSITIVE:
        if "id" in case.path_parameters and case.method != "DELETE":
            case.path_parameters["id"] = result
        if isinstance(case.body, dict) and "image" in case.body:
            case.body["image"] = data.draw(st.sampled_from(IMAGES))
    return case


def run_examples(server: GroundingServer, number: int) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}openapi.json")
    operations = [each.ok() for each in schema.get_all_operations()]
    assert len(operations) == 6
    result = server.predict(draw_shapes(), "the red square", "the blue circle").document["id"]
    statuses: set[int] = set()

    @settings(
        max_examples=number, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def send(data: st.DataObject) -> None:
        case = draw_case(data, operations, result)
        response = case.call()
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    send()
    assert {200, 404, 422} <= statuses
    assert server.health()["status"] == "ok"


def test_requests_of_the_description_are_answered_as_it_says(server: GroundingServer) -> None:
    run_examples(server, 40)


@pytest.mark.slow
def test_a_thousand_requests_of_the_description_are_answered_as_it_says(server: GroundingServer) -> None:
    run_examples(server, 1000)
