"""`igvg serve` as a process of its own on the loopback, and a client of it that needs no library."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.launched_processes import environment

Field = tuple[str, str | bytes]


@dataclass
class Reply:
    """Status, headers and body of a response."""

    status: int
    headers: Message
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """A client of a running server."""

    url: str

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """A request to the end of its response; header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url.rstrip("/") + path, body, named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return Reply(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read())

    def predict(self, image: bytes, *texts: str, headers: Mapping[str, str] | None = None, **settings: Any) -> Reply:
        """`POST /predict`."""
        fields: list[Field] = [("image", image), *(("texts", text) for text in texts)]
        fields += [(name, str(value).lower()) for name, value in settings.items()]
        body, kind = encode_form(fields)
        return self.ask("POST", "/predict", body, Content_Type=kind, **(headers or {}))

    def postprocess(self, result: str, path: str = "", **settings: Any) -> Reply:
        """`POST /results/{id}`."""
        return self.ask(
            "POST", f"/results/{result}{path}", json.dumps(settings).encode(), Content_Type="application/json"
        )

    def health(self) -> dict[str, Any]:
        document: dict[str, Any] = self.ask("GET", "/health").document
        return document


@dataclass
class GroundingServer(Client):
    """A running server."""

    process: subprocess.Popen[str]

    def stop(self, signum: int = signal.SIGTERM, seconds: float = 30) -> tuple[int, str]:
        """End the server; returns its exit status and what it said on standard error."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        try:
            stderr = self.process.communicate(timeout=seconds)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, stderr


@contextmanager
def run_server(*arguments: str | Path, checkpoint: str | Path = "shapes", **changes: str) -> Iterator[GroundingServer]:
    """A server on a free port that runs until the block ends, and must not have complained until then."""
    words = ["serve", "--checkpoint", checkpoint, "--port", "0", *arguments, "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "igvg_cli", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(**changes), preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    if not url:
        raise AssertionError(process.communicate())
    server = GroundingServer(url, process)
    try:
        yield server
    finally:
        _, stderr = server.stop()
    assert "Error" not in stderr, stderr


def encode_form(fields: Sequence[Field]) -> tuple[bytes, str]:
    """A multipart form and its content type; values of bytes are files."""
    boundary = uuid.uuid4().hex
    lines: list[bytes] = []
    for name, value in fields:
        file = '; filename="image"\r\nContent-Type: application/octet-stream' if isinstance(value, bytes) else ""
        lines += [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()]
        lines += [value if isinstance(value, bytes) else value.encode(), b"\r\n"]
    return b"".join([*lines, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


def resident_mebibytes(process: int) -> float:
    """Memory of a process that is in use now."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
