"""Requests that are made to take time or memory: refused, and the server's own use of both is measured."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import URLError

import pytest

from tests.support.bombs import IMAGES, make_png
from tests.support.grounding_server import GroundingServer, Reply
from tests.support.refusals import MEGABYTES, SECONDS

FORM = "multipart/form-data; boundary=x"


def make_part(name: bytes, body: bytes = b"a", more: bytes = b"") -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="' + name + b'"' + more + b"\r\n\r\n" + body + b"\r\n"


END, HUGE, FILE = b"--x--\r\n", b"a" * 15_000_000, b'; filename="a"'
BODIES = {
    "many fields": make_part(b"texts") * 200_000 + END,
    "many files": make_part(b"image", more=FILE) * 100_000 + END,
    "huge field": make_part(b"texts", HUGE) + END,
    "huge name": make_part(HUGE) + END,
    "huge file name": make_part(b"image", more=b'; filename="' + HUGE + b'"') + END,
    "many headers": b"--x\r\n" + b"X-A: b\r\n" * 1_000_000 + b"\r\na\r\n" + END,
    "header without end": b"--x\r\n" + HUGE,
    "boundaries": b"--x\r\n" * 2_000_000,
    "broken off": make_part(b"texts"),
    "zeros": bytes(15_000_000),
}
KINDS = (
    "", "text/plain", "application/json", "image/png", "multipart/form-data", "multipart/mixed; boundary=x",
    "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "x" * 20_000,
    "application/x-www-form-urlencoded",
)  # fmt: skip


def measure(server: GroundingServer) -> tuple[float, float]:
    """Seconds of CPU time so far, and MiB of memory: now or, since the peak was last forgotten, at most."""
    folder = Path("/proc") / str(server.process.pid)
    times = (folder / "stat").read_text().rpartition(")")[2].split()
    peak = next(line for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM"))
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK"), int(peak.split()[1]) / 1024


def send(server: GroundingServer, body: bytes, kind: str, path: str = "/predict") -> Reply | None:
    """The refusal of a request; None where the server closed the connection before it had read the request."""
    (Path("/proc") / str(server.process.pid) / "clear_refs").write_text("5")
    seconds, megabytes = measure(server)
    try:
        reply = server.ask("POST", path, body, Content_Type=kind)
    except (URLError, ConnectionError):
        reply = None
    after = measure(server)
    assert after[0] - seconds < SECONDS
    assert after[1] - megabytes < MEGABYTES
    assert server.ask("GET", "/health").status == 200
    assert reply is None or reply.status in (400, 413, 422), reply
    assert reply is None or len(reply.body) < 2000
    return reply


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_bomb_is_refused(server: GroundingServer, name: str) -> None:
    body = make_part(b"texts") + make_part(b"image", IMAGES[name](), FILE) + END
    assert send(server, body, FORM) is not None


@pytest.mark.parametrize("name", BODIES)
def test_a_form_that_is_made_to_take_time_or_memory_is_refused(server: GroundingServer, name: str) -> None:
    send(server, BODIES[name], FORM)


@pytest.mark.parametrize("kind", KINDS, ids=range(len(KINDS)))
def test_a_form_under_another_content_type_is_refused(server: GroundingServer, kind: str) -> None:
    image = make_png(40, 30, filled=True)
    send(server, make_part(b"texts") + make_part(b"image", image, FILE) + END, kind)


@pytest.mark.parametrize("body", [b"[" * 1_000_000, b"9" * 1_000_000, b'{"a":' * 200_000], ids=["[", "9", "{"])
def test_nested_or_long_settings_are_refused(server: GroundingServer, body: bytes) -> None:
    result = server.predict(make_png(40, 30, filled=True), "it").document["id"]
    send(server, body, "application/json", f"/results/{result}")
