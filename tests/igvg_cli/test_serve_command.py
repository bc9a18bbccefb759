"""`igvg serve`: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.drawn_images import draw_shapes
from tests.support.grounding_server import run_server
from tests.support.launched_processes import environment
from tests.support.pipeline_runs import igvg, only_error

REPEATED = "import sys\nsys.modules['uvicorn'] = None\nfrom igvg_cli.__main__ import main\nmain()\n"


@pytest.mark.parametrize(
    ("signum", "word", "status"), [(signal.SIGINT, "Interrupted", 130), (signal.SIGTERM, "Stopped by SIGTERM", 143)]
)
def test_a_signal_ends_the_server_in_one_line(signum: int, word: str, status: int) -> None:
    with run_server() as server:
        assert server.predict(draw_shapes(), "the red square").status == 200
        # What clients send wrongly is no matter of the server's log.
        assert server.ask("POST", "/predict", b"--b?", Content_Type="multipart/form-data; boundary=b").status == 400
        start = time.monotonic()
        returned, stderr = server.stop(signum)
        assert time.monotonic() - start < 10
    assert returned == status
    assert stderr == f"{word}: the server has ended.\n"


def test_a_port_that_is_in_use_is_named_in_one_line_before_the_network_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = only_error(igvg("serve", "--checkpoint", "shapes", "--port", str(port)))
    assert f"127.0.0.1, port {port}" in error
    assert "in use" in error
    assert "--port" in error


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_an_address_that_others_reach_needs_a_token(host: str) -> None:
    error = only_error(igvg("serve", "--checkpoint", "shapes", "--host", host, "--port", "0", IGVG_SERVE_TOKEN=""))
    assert "IGVG_SERVE_TOKEN" in error


def test_an_address_that_is_not_this_machines_is_named() -> None:
    words = ["serve", "--checkpoint", "shapes", "--host", "192.0.2.1", "--port", "0", "--token", "secret"]
    assert "cannot listen on 192.0.2.1" in only_error(igvg(*words))


@pytest.mark.parametrize("token", ["two words", "sécret"])
def test_a_token_that_no_header_can_hold_is_refused(token: str) -> None:
    error = only_error(igvg("serve", "--checkpoint", "shapes", "--token", token))
    assert "token" in error
    assert token not in error


def test_without_its_libraries_it_says_what_to_install() -> None:
    result = subprocess.run(
        [sys.executable, "-c", REPEATED, "serve", "--checkpoint", "shapes"], capture_output=True, text=True,
        env=environment(), timeout=60,
    )  # fmt: skip
    assert "pip install 'igvg[serve]'" in only_error(result)


def test_a_checkpoint_that_is_none_is_one_line(tmp_path: Path) -> None:
    error = only_error(igvg("serve", "--checkpoint", tmp_path, "--port", "0"))
    assert str(tmp_path) in error


def test_an_unknown_setting_is_one_line() -> None:
    error = only_error(igvg("serve", "--checkpoint", "shapes", "--set", "kept_result=3"))
    assert "kept_results" in error
