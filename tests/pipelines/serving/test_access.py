"""A running server refuses other names, other origins and wrong tokens, and says nothing of its machine."""

from __future__ import annotations

import socket

import pytest

from tests.support.drawn_images import draw_shapes
from tests.support.grounding_server import GroundingServer


@pytest.mark.parametrize("path", ["/", "/health", "/openapi.json", "/static/serve.js"])
def test_requests_under_another_name_are_refused(server: GroundingServer, path: str) -> None:
    assert server.ask("GET", path).status == 200
    assert server.ask("GET", path, Host="evil.example").status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)  # fmt: skip
def test_requests_of_other_origins_are_refused(server: GroundingServer, headers: dict[str, str]) -> None:
    passes = server.health()["forward_passes"]
    reply = server.predict(draw_shapes(), "the red square", headers=headers)
    assert reply.status == 403
    assert "Access-Control-Allow-Origin" not in reply.headers
    assert server.health()["forward_passes"] == passes


def test_requests_of_its_own_page_are_answered(server: GroundingServer) -> None:
    headers = {"Origin": server.url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert server.predict(draw_shapes(), "the red square", headers=headers).status == 200


def test_a_link_on_another_site_may_lead_to_the_page(server: GroundingServer) -> None:
    assert server.ask("GET", "/", Sec_Fetch_Site="cross-site").status == 200


def test_no_other_origin_is_ever_allowed(server: GroundingServer) -> None:
    preflight = {"Origin": "https://evil.example", "Access_Control_Request_Method": "POST"}
    reply = server.ask("OPTIONS", "/predict", **preflight)
    assert reply.status == 403
    assert "Access-Control-Allow-Origin" not in reply.headers


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/health"), ("GET", "/openapi.json"), ("POST", "/predict"), ("POST", "/results/a"), ("GET", "/unknown")],
)
@pytest.mark.parametrize("header", ["", "Bearer wrong", "Basic secret", "Bearer secret2"])
def test_without_the_token_nothing_but_the_page_is_given(
    guarded: GroundingServer, method: str, path: str, header: str
) -> None:
    reply = guarded.ask(method, path, Authorization=header)
    assert reply.status == 401
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert guarded.ask("GET", "/").status == 200


def test_a_server_on_all_addresses_has_the_name_that_it_printed(guarded: GroundingServer) -> None:
    name = socket.gethostname()
    for host in (name, f"{name}:{guarded.port}", f"{name}.example"):
        assert guarded.ask("GET", "/", Host=host).status == 200
    assert guarded.ask("GET", "/", Host=f"x{name}").status == 403


def test_with_the_token_all_is_given(guarded: GroundingServer) -> None:
    token = {"Authorization": "Bearer secret"}
    assert guarded.predict(draw_shapes(), "the red square", headers=token).status == 200
    document = guarded.ask("GET", "/openapi.json", **token).document
    assert document["security"] == [{"token": []}]
    assert guarded.ask("GET", "/health?token=secret").status == 401


@pytest.mark.parametrize("path", ["/", "/health", "/unknown", "/static/layers.js"])
def test_every_response_forbids_what_the_page_does_not_need(server: GroundingServer, path: str) -> None:
    headers = server.ask("GET", path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "Server" not in headers


def test_nothing_tells_of_the_machine(server: GroundingServer) -> None:
    replies = [server.ask("GET", path) for path in ("/health", "/openapi.json", "/unknown", "/")]
    replies += [server.predict(b"no image", "star"), server.predict(draw_shapes()[:200], "star")]
    for reply in replies:
        for word in (b"site-packages", b"/pipelines/", b"/home", b"/root", b"/tmp", b"Traceback"):
            assert word not in reply.body
