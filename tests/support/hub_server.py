"""A hub on the loopback: what huggingface_hub asks for when it downloads a model or uploads one.

Files of weights are stored as the hub stores large files: `resolve` redirects to another address, and an upload goes
through the large-file protocol. Xet, the hub's newer storage of large files, is not played: HF_HUB_DISABLE_XET is set.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".pth", ".zip")
TOKEN = "hf_secretsecretsecretsecretsecret"


@dataclass
class Repo:
    """A repository of models: commits, and the branches and tags that point to them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    private: bool = False
    messages: list[str] = field(default_factory=list)

    def add(self, files: dict[str, bytes], revision: str = "main") -> str:
        """A commit of these files; returns its hash."""
        content = repr(sorted((name, hashlib.sha256(data).hexdigest()) for name, data in files.items()))
        commit = hashlib.sha1(f"{len(self.commits)} {content}".encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.revisions[revision] = commit
        return commit

    def find(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.revisions.get(revision)

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the default branch."""
        return self.commits[self.revisions["main"]]


@dataclass
class Hub:
    """What the server holds, what was asked of it, and how it fails."""

    address: str = ""
    storage: str = ""
    """Where large files are; another host for clients, which must not send their token there."""
    repos: dict[str, Repo] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    trusted: set[str] = field(default_factory=set)
    """The hosts that were sent a token."""
    failing: dict[str, int] = field(default_factory=dict)
    """The status of requests whose line contains a text."""
    gated: set[str] = field(default_factory=set)
    """Repositories whose owner has to agree."""
    truncating: bool = False
    """Whether large files end in the middle."""
    delay: float = 0.0
    """Seconds before the second half of a large file."""

    def add_folder(self, name: str, folder: Path, **settings: Any) -> str:
        """A repository of a folder's files; returns the commit."""
        files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        return self.repos.setdefault(name, Repo(**settings)).add(files)

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """The environment variables of a process that uses this hub and the cache in `home`."""
        return {"HF_ENDPOINT": self.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **more}

    def downloads(self) -> list[str]:
        """The large files that were read."""
        return [line for line in self.requests if line.startswith("GET /large/")]


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub that runs until the block ends."""
    hub = Hub()

    class Handler(HubHandler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    port = server.server_address[1]
    hub.address, hub.storage = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class HubHandler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Print nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self._read_chunks()
        self.hub.requests.append(line := f"{self.command} {self.path}")
        self.hub.agents.add(self.headers.get("User-Agent", ""))
        if self.headers.get("Authorization"):
            self.hub.trusted.add(self.headers["Host"])
        path = unquote(urlsplit(self.path).path)
        for text, status in self.hub.failing.items():
            if text in line:
                return self._send(status, {"error": "no"})
        if path.startswith("/large/"):
            return self._answer_large(path.removeprefix("/large/"))
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create()
        for kind, prefix in (("models", ""), ("datasets", "datasets/")):
            if path.startswith(f"/api/{kind}/"):
                return self._answer_api(path.removeprefix(f"/api/{kind}/"), prefix)
        if "/resolve/" in path:
            return self._resolve(*path.removeprefix("/").split("/resolve/"))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._plan_upload()
        return self._send(404, {"error": "unknown address"})

    def _read_chunks(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _send(self, status: int, document: Any = None, data: bytes | None = None, **headers: str) -> None:
        content = json.dumps(document).encode() if data is None else data
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _allowed(self, name: str) -> Repo | None:
        """The repository, or None after an answer that says that there is none."""
        repo = self.hub.repos.get(name)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo is None and known:
            self._send(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif repo is None or (repo.private and not known):
            # The hub does not tell strangers whether there is one.
            self._send(401, {"error": "Invalid username or password."})
        elif name in self.hub.gated:
            self._send(403, {"error": "Access to this model is restricted"}, X_Error_Code="GatedRepo")
        else:
            return repo
        return None

    def _find_commit(self, repo: Repo, revision: str) -> str | None:
        commit = repo.find(revision)
        if commit is None:
            self._send(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        return commit

    def _answer_api(self, path: str, prefix: str) -> None:
        """Answer about a repository; those of data sets are named datasets/USER/REPO here."""
        name, action, revision = ["/".join(path.split("/")[:2]), *path.split("/", 3)[2:4], "", "main"][:3]
        name = prefix + name
        action = action or "revision"
        if (repo := self._allowed(name)) is None:
            return None
        if action == "commit":
            return self._commit(repo, name, revision)
        if action == "branch":
            repo.revisions[revision] = repo.revisions.get("main", "")
            return self._send(200, {})
        if action == "preupload":
            files = json.loads(self.body)["files"]
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                 "shouldIgnore": False, "oid": None}
                for file in files
            ]  # fmt: skip
            return self._send(200, {"files": modes})
        folder = ""
        if action == "tree" and repo.find(revision) is None:
            revision, _, folder = revision.partition("/")
        if (commit := self._find_commit(repo, revision)) is None:
            return None
        files = {path: data for path, data in repo.commits[commit].items() if path.startswith(folder)}
        if folder and not files:
            return self._send(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        if action == "tree":
            return self._send(200, [describe_file(path, data) for path, data in files.items()])
        siblings = [{"rfilename": path} for path in files]
        return self._send(200, {"id": name, "modelId": name, "sha": commit, "private": False, "siblings": siblings})

    def _resolve(self, name: str, rest: str) -> None:
        revision, path = rest.split("/", 1)
        if (repo := self._allowed(name)) is None or (commit := self._find_commit(repo, revision)) is None:
            return None
        data = repo.commits[commit].get(path)
        if data is None:
            return self._send(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        if not path.endswith(LARGE):
            return self._send(200, data=data, X_Repo_Commit=commit, ETag=f'"{git_hash(data)}"')
        digest = hashlib.sha256(data).hexdigest()
        self.hub.large[digest] = data
        return self._send(
            302, data=b"", Location=f"{self.hub.storage}/large/{digest}?signature=hidden", X_Repo_Commit=commit,
            X_Linked_Etag=f'"{digest}"', X_Linked_Size=str(len(data)),
        )  # fmt: skip

    def _answer_large(self, digest: str) -> None:
        if self.command == "PUT":
            assert hashlib.sha256(self.body).hexdigest() == digest
            self.hub.large[digest] = self.body
            return self._send(200, {})
        data = self.hub.large[digest]
        if self.command == "HEAD":
            return self._send(200, data=data)
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        middle = (start + len(data)) // 2
        self.wfile.write(data[start:middle])
        self.wfile.flush()
        time.sleep(self.hub.delay)
        if self.hub.truncating:
            self.close_connection = True
        else:
            self.wfile.write(data[middle:])
        return None

    def _create(self) -> None:
        values = json.loads(self.body)
        name = f"{values['organization']}/{values['name']}" if values.get("organization") else f"me/{values['name']}"
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"error": "Invalid username or password."})
        if name in self.hub.repos:
            return self._send(
                409, {"error": "You already created this model repo", "url": f"{self.hub.address}/{name}"}
            )
        private = values.get("private") or values.get("visibility") == "private"
        self.hub.repos[name] = Repo(private=bool(private))
        self.hub.repos[name].add({".gitattributes": b""})
        return self._send(200, {"url": f"{self.hub.address}/{name}", "name": name})

    def _plan_upload(self) -> None:
        objects = [
            {"oid": each["oid"], "size": each["size"],
             "actions": {"upload": {"href": f"{self.hub.storage}/large/{each['oid']}", "header": {}}}}
            for each in json.loads(self.body)["objects"]
        ]  # fmt: skip
        self._send(200, {"transfer": "basic", "objects": objects})

    def _commit(self, repo: Repo, name: str, revision: str) -> None:
        files = dict(repo.commits.get(repo.revisions.get(revision, ""), {}))
        for line in self.body.splitlines():
            key, value = (entry := json.loads(line))["key"], entry["value"]
            if key == "header":
                repo.messages.append(value["summary"])
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                raise AssertionError(key)
        commit = repo.add(files, revision)
        url = f"{self.hub.address}/{name}/commit/{commit}"
        self._send(200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})


def git_hash(data: bytes) -> str:
    """Git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def describe_file(path: str, data: bytes) -> dict[str, Any]:
    """A file in a listing."""
    entry = {"type": "file", "path": path, "size": len(data), "oid": git_hash(data)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry
