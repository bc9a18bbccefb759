"""A web server on the loopback that gives the files of a folder and, for each request that is told so, fails to."""

from __future__ import annotations

import gzip
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class ShardServer:
    """`failures` holds, by name, what happens to the next requests: a status, or the name of a failure.

    truncate: the connection ends after half of the file. corrupt: a byte is changed. longer: more comes than the file
    holds. wrong-length: Content-Length is twice the size. shorter-length: Content-Length is half the size. silent:
    nothing comes. trickle: a byte each 0.1 s. close: the connection ends without an answer. delay: it takes 0.3 s.
    slow: the file takes about 2 s. paused: about 0.1 s, in five parts. other-range: not the part that was asked for.
    unsatisfiable: 416 to any Range. page: a page in HTML with status 200. redirect: to itself. gzip: compressed, as the
    header says. other: the file of this name in the folder `others`.

    With `ranges` parts of files are given. `sent` counts the bytes of each file.
    """

    folder: Path
    failures: dict[str, list[int | str]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    complete: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    ranges: bool = False
    headers: list[dict[str, str]] = field(default_factory=list)
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def always(self, name: str, failure: int | str) -> None:
        self.failures[name] = [failure] * 1000

    def take(self, name: str) -> int | str:
        with self.lock:
            self.requests[name] += 1
            return self.failures[name].pop(0) if self.failures.get(name) else ""


@contextmanager
def serve_folder(folder: Path) -> Iterator[ShardServer]:
    state = ShardServer(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = unquote(urlsplit(self.path).path).lstrip("/")
            state.headers.append(dict(self.headers))
            failure, file = state.take(name), state.folder / name
            if isinstance(failure, int) or not file.is_file():
                self.send_error(failure if isinstance(failure, int) else 404)
                return
            try:
                self.give(name, file.read_bytes(), failure)
            except OSError:
                return
            if not failure:
                state.complete[name] += 1

        def give(self, name: str, data: bytes, failure: str) -> None:
            start, total = 0, len(data)
            if state.ranges and "Range" in self.headers:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                if failure == "unsatisfiable":
                    self.send_error(416)
                    return
                data = data[start:]
            if failure == "close":
                self.connection.close()
                return
            if failure == "redirect":
                self.send_response(302)
                self.send_header("Location", self.path)
                self.end_headers()
                return
            if failure == "other":
                data = (state.folder / "others" / name).read_bytes()
            if failure == "page":
                data = b"<!DOCTYPE html><html><body>Sign in</body></html>"
            if failure == "gzip":
                data = gzip.compress(data)
            if failure == "silent":
                time.sleep(3)
                return
            if failure == "delay":
                time.sleep(0.3)
            self.send_response(206 if start else 200)
            if start:
                given = start + 1 if failure == "other-range" else start
                self.send_header("Content-Range", f"bytes {given}-{total - 1}/{total}")
            if failure == "gzip":
                self.send_header("Content-Encoding", "gzip")
            lengths = {"wrong-length": 2 * len(data), "shorter-length": len(data) // 2, "longer": len(data) + 10**6}
            self.send_header("Content-Length", str(lengths.get(failure, len(data))))
            self.end_headers()
            state.sent[name] += len(data) // 2 if failure == "truncate" else len(data)
            if failure == "truncate":
                self.wfile.write(data[: len(data) // 2])
            elif failure == "corrupt":
                self.wfile.write(bytes([*data[:700], data[700] ^ 1, *data[701:]]))
            elif failure == "longer":
                self.wfile.write(data + bytes(10**6))
            elif failure in ("trickle", "slow", "paused"):
                step = {"trickle": 1, "slow": len(data) // 20, "paused": len(data) // 5 + 1}[failure]
                for start in range(0, len(data), step):
                    self.wfile.write(data[start : start + step])
                    self.wfile.flush()
                    time.sleep(0.02 if failure == "paused" else 0.1)
            else:
                self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *arguments: Any) -> None:
            return

    server = Server(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
