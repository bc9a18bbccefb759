"""Object stores on the loopback: what s3fs and gcsfs ask for when they read objects."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

KEY = "AKIDEXAMPLE"


@dataclass
class ObjectStore:
    """The buckets of a server by name, and by key the statuses of the next requests; every request is listed."""

    buckets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    failures: dict[str, list[int]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    address: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of a process that reads this server through s3fs."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def add_folder(self, bucket: str, prefix: str, folder: Path) -> None:
        """Put all files of a folder into a bucket."""
        files = {
            f"{prefix}/{file.relative_to(folder)}": file.read_bytes() for file in folder.rglob("*") if file.is_file()
        }
        self.buckets.setdefault(bucket, {}).update(files)

    def take_failure(self, key: str) -> int:
        with self.lock:
            return self.failures[key].pop(0) if self.failures.get(key) else 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: ObjectStore

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Print nothing."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        parts = urlsplit(self.path)
        self.store.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        self.reply(parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()})

    def reply(self, path: str, query: dict[str, str]) -> None:
        raise NotImplementedError

    def send(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_object(self, data: bytes, **headers: str) -> None:
        """An object, or the part of it that was asked for."""
        asked = self.headers.get("Range", "").removeprefix("bytes=")
        if not asked:
            return self.send(200, data, **headers)
        first, _, last = asked.partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        given = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        return self.send(206, part, Content_Range=given, **headers)


class _S3Handler(_Handler):
    """HEAD and GET of objects, and ListObjectsV2, in path style; errors in S3's XML."""

    def reply(self, path: str, query: dict[str, str]) -> None:
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        if f"Credential={KEY}/" not in self.headers.get("Authorization", ""):
            return self.fail(403, "InvalidAccessKeyId")
        if status := self.store.take_failure(key):
            return self.fail(status, "SlowDown" if status == 503 else "AccessDenied")
        if bucket not in self.store.buckets:
            return self.fail(404, "NoSuchBucket")
        if not key:
            return self.list_objects(self.store.buckets[bucket], query)
        if key not in self.store.buckets[bucket]:
            return self.fail(404, "NoSuchKey")
        data = self.store.buckets[bucket][key]
        dated = {"Last_Modified": "Wed, 01 Jan 2025 00:00:00 GMT", "Content_Type": "application/octet-stream"}
        return self.send_object(data, ETag=f'"{hashlib.md5(data).hexdigest()}"', Accept_Ranges="bytes", **dated)

    def fail(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
        self.send(status, text.encode(), Content_Type="application/xml")

    def list_objects(self, objects: dict[str, bytes], query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        contents, prefixes = [], set()
        for key, data in sorted(objects.items()):
            if not key.startswith(prefix):
                continue
            name, found, _ = key.removeprefix(prefix).partition(delimiter) if delimiter else (key, "", "")
            if found:
                prefixes.add(prefix + name + delimiter)
                continue
            contents.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>0</ETag><Size>{len(data)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
        folders = "".join(
            f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(prefixes)
        )
        count = f"<KeyCount>{len(contents) + len(prefixes)}</KeyCount><IsTruncated>false</IsTruncated>"
        text = f"<?xml version='1.0'?><ListBucketResult>{count}{''.join(contents)}{folders}</ListBucketResult>"
        self.send(200, text.encode(), Content_Type="application/xml")


class _GoogleHandler(_Handler):
    """Metadata and content of objects, and listings, in the JSON API."""

    def reply(self, path: str, query: dict[str, str]) -> None:
        words = path.removeprefix("/download").removeprefix("/storage/v1").strip("/").split("/")
        bucket, key = unquote(words[1]) if len(words) > 1 else "", unquote(words[3]) if len(words) > 3 else ""
        if status := self.store.take_failure(key):
            return self.fail(status)
        if bucket not in self.store.buckets:
            return self.fail(404)
        objects = self.store.buckets[bucket]
        if not key:
            prefix = query.get("prefix", "")
            items = [self.describe(bucket, name, data) for name, data in objects.items() if name.startswith(prefix)]
            return self.send_json(200, {"kind": "storage#objects", "items": items})
        if key not in objects:
            return self.fail(404)
        if path.startswith("/download") or query.get("alt") == "media":
            return self.send_object(objects[key], Content_Type="application/octet-stream")
        return self.send_json(200, self.describe(bucket, key, objects[key]))

    def fail(self, status: int) -> None:
        self.send_json(status, {"error": {"code": status, "message": f"refused with {status}"}})

    def send_json(self, status: int, document: Any) -> None:
        self.send(status, json.dumps(document).encode(), Content_Type="application/json")

    def describe(self, bucket: str, key: str, data: bytes) -> dict[str, Any]:
        return {
            "kind": "storage#object", "id": f"{bucket}/{key}/1", "name": key, "bucket": bucket, "generation": "1",
            "size": str(len(data)), "updated": "2025-01-01T00:00:00.000Z", "timeCreated": "2025-01-01T00:00:00.000Z",
            "storageClass": "STANDARD",
        }  # fmt: skip


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: Any) -> None:
        """Clients close connections when they know enough."""


@contextmanager
def serve_s3() -> Iterator[ObjectStore]:
    """A server that speaks S3 for the access key `KEY`."""
    with _serve(_S3Handler) as store:
        yield store


@contextmanager
def serve_google() -> Iterator[ObjectStore]:
    """A server that speaks the JSON API of Google's cloud storage, to anyone."""
    with _serve(_GoogleHandler) as store:
        yield store


@contextmanager
def _serve(kind: type[_Handler]) -> Iterator[ObjectStore]:
    store = ObjectStore()
    handler = type("Handler", (kind,), {"store": store})
    server = _Server(("127.0.0.1", 0), handler)
    store.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
