"""Names of the hub, and what downloads leave in the cache; the hub is a server on the loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.hub.names import find_commit
from pipelines.networks import SHIPPED
from tests.support.hub_server import TOKEN, Hub, serve_hub

NETWORK = SHIPPED["shapes"]
NEEDED = {file.name for file in NETWORK.iterdir()} - {"origin.json"}
# Prints the path, or the error after its kind, then the heavy libraries that were loaded.
RESOLVE = """
import sys
import huggingface_hub.constants  # as transformers does, before igvg
from pipelines.networks import resolve_checkpoint
from shards.errors import CheckpointError
try:
    print(resolve_checkpoint(sys.argv[1], revision=sys.argv[2] or None))
except CheckpointError as error:
    print("CheckpointError:", error)
print(*{"torch", "transformers"} & sys.modules.keys())
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as running:
        running.add_folder("me/shapes", NETWORK)
        yield running


def start_resolving(hub: Hub, home: Path, name: str, revision: str = "", **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RESOLVE, name, revision], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | hub.environment(home, **environment),
    )  # fmt: skip


def resolve(hub: Hub, home: Path, name: str, revision: str = "", **environment: str) -> str:
    """The path that a fresh process finds, or its error; nothing else was printed and nothing heavy loaded."""
    hub.requests.clear()
    process = start_resolving(hub, home, name, revision, **environment)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    lines = output.splitlines()
    assert lines[1:] == [""], output
    return lines[0]


def test_only_the_files_of_a_checkpoint_are_downloaded_and_only_once(hub: Hub, tmp_path: Path) -> None:
    more = {"README.md": b"#", "pytorch_model.bin": b"x", "model.fp16.safetensors": b"x", "old/model.safetensors": b"x"}
    commit = hub.repos["me/shapes"].add({**hub.repos["me/shapes"].files, **more})
    folder = Path(resolve(hub, tmp_path, "me/shapes"))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        name: (NETWORK / name).read_bytes() for name in NEEDED
    }
    assert folder.is_relative_to(tmp_path)
    assert find_commit(folder) == find_commit(folder / "config.json") == f"me/shapes@{commit}"
    assert find_commit(NETWORK) is None
    assert len(hub.downloads()) == 1
    assert resolve(hub, tmp_path, "me/shapes") == str(folder)
    assert not [line for line in hub.requests if "/resolve/" in line or "/large/" in line]


def test_the_hub_is_told_nothing_about_this_machine(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for switch in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.delenv(switch, raising=False)
    resolve(hub, tmp_path, "me/shapes")
    assert any(agent.startswith("igvg/") for agent in hub.agents)
    assert not [agent for agent in hub.agents if "torch" in agent]
    assert not [line for line in hub.requests if "harness" in line]


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_the_cache_is_used_and_nothing_is_asked(hub: Hub, tmp_path: Path, switch: str) -> None:
    folder = resolve(hub, tmp_path / "full", "me/shapes")
    assert resolve(hub, tmp_path / "full", "me/shapes", **{switch: "1"}) == folder
    assert not hub.requests
    error = resolve(hub, tmp_path / "empty", "me/shapes", **{switch: "1"})
    assert "me/shapes is neither a path here nor complete in the hub's cache" in error
    assert f"and {switch} forbids a download; unset it" in error
    assert not hub.requests


def test_the_cache_is_where_the_environment_says(hub: Hub, tmp_path: Path) -> None:
    folder = resolve(hub, tmp_path / "home", "me/shapes", HF_HUB_CACHE=str(tmp_path / "cache"))
    assert Path(folder).is_relative_to(tmp_path / "cache")


def test_without_a_network_the_cache_is_used_and_a_model_that_is_not_there_is_one_line(
    hub: Hub, tmp_path: Path
) -> None:
    folder, nowhere = resolve(hub, tmp_path, "me/shapes"), {"HF_ENDPOINT": "http://user:password@127.0.0.1:9"}
    assert resolve(hub, tmp_path, "me/shapes", **nowhere) == folder
    error = resolve(hub, tmp_path, "me/other", **nowhere)
    assert "http://127.0.0.1:9 could not be read (Connect" in error
    assert "password" not in error


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_that_fails_is_one_line_unless_the_cache_holds_the_model(hub: Hub, tmp_path: Path, status: int) -> None:
    folder = resolve(hub, tmp_path / "full", "me/shapes")
    hub.failing = {"GET /api/models": status}
    assert resolve(hub, tmp_path / "full", "me/shapes") == folder
    error = resolve(hub, tmp_path / "empty", "me/shapes")
    assert error.endswith(f"failed to answer for me/shapes (HTTP {status}); try again later")


@pytest.mark.parametrize("token", ["", "hf_wrong", TOKEN])
def test_a_missing_model_is_one_line_that_also_says_that_there_is_no_such_path(
    hub: Hub, tmp_path: Path, token: str
) -> None:
    error = resolve(hub, tmp_path, "runs/nowhere", HF_TOKEN=token)
    assert error.startswith("CheckpointError: runs/nowhere is neither a path here nor a model on http://127.0.0.1:")
    assert error.endswith("check the name, or if it is private, log in with hf auth login, or set HF_TOKEN")
    assert not token or token not in error


def test_a_private_model_needs_a_token_which_is_not_sent_to_the_storage(hub: Hub, tmp_path: Path) -> None:
    hub.add_folder("me/secret", NETWORK, private=True)
    error = resolve(hub, tmp_path, "me/secret", HF_TOKEN="hf_wrong")
    assert "me/secret is neither a path here nor a model on" in error
    assert "hf_wrong" not in error
    folder = Path(resolve(hub, tmp_path, "me/secret", HF_TOKEN=TOKEN))
    assert (folder / "model.safetensors").read_bytes() == (NETWORK / "model.safetensors").read_bytes()
    assert {host.split(":")[0] for host in hub.trusted} == {"127.0.0.1"}
    assert hub.downloads()


def test_gated_and_forbidden_models_are_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.failing = {"GET /api/models/me/shapes": 403}
    assert "refuses this machine access to me/shapes; log in" in resolve(hub, tmp_path, "me/shapes")
    hub.failing = {}
    hub.gated = {"me/shapes"}
    error = resolve(hub, tmp_path, "me/shapes")
    assert f"me/shapes is gated: ask for access at {hub.address}/me/shapes, then log in" in error


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, tmp_path: Path) -> None:
    repo = hub.repos["me/shapes"]
    first = repo.revisions["main"]
    repo.revisions["v1"] = first
    config = json.loads((NETWORK / "config.json").read_bytes()) | {"later": 1}
    second = repo.add({**repo.files, "config.json": json.dumps(config).encode()})
    assert resolve(hub, tmp_path, "me/shapes").endswith(second)
    assert resolve(hub, tmp_path, "me/shapes@v1").endswith(first)
    assert resolve(hub, tmp_path, "me/shapes", "v1").endswith(first)
    assert resolve(hub, tmp_path, f"me/shapes@{first}").endswith(first)
    error = resolve(hub, tmp_path, "me/shapes@v9")
    assert error.endswith("has no revision v9; check its branches and tags")


def test_a_repository_that_is_no_checkpoint_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.repos["me/shapes"].add({"config.json": b"{}", "pytorch_model.bin": b"x"})
    error = resolve(hub, tmp_path, "me/shapes")
    assert "me/shapes on the hub is no checkpoint: it needs config.json and model.safetensors" in error
    assert "igvg import hf://me/shapes/FILE.pth" in error


def test_a_file_comes_with_the_tokenizer_beside_it(hub: Hub, tmp_path: Path) -> None:
    commit = hub.repos["me/shapes"].add(
        {"a/net.pth": b"net", "a/beit3.spm": b"pieces", "beit3.spm": b"others", "b": b""}
    )
    path = Path(resolve(hub, tmp_path, "hf://me/shapes/a/net.pth"))
    assert (path.name, path.read_bytes()) == ("net.pth", b"net")
    assert find_commit(path) == f"me/shapes@{commit}"
    assert {file.name for file in path.parent.iterdir()} == {"net.pth", "beit3.spm"}
    assert {file.name for file in path.parents[1].iterdir()} == {"a"}
    error = resolve(hub, tmp_path, "hf://me/shapes/a/nut.pth")
    assert error.endswith("me/shapes on the hub has no file a/nut.pth; check its list of files there")


def test_what_ends_in_the_middle_is_one_line_and_leaves_no_half_file(hub: Hub, tmp_path: Path) -> None:
    hub.truncating = True
    error = resolve(hub, tmp_path, "me/shapes")
    assert "could not be read (" in error
    assert "signature" not in error
    assert not list(tmp_path.rglob("model.safetensors"))
    hub.truncating = False
    folder = Path(resolve(hub, tmp_path, "me/shapes"))
    assert (folder / "model.safetensors").read_bytes() == (NETWORK / "model.safetensors").read_bytes()


def test_a_cache_that_was_filled_in_part_is_no_checkpoint_offline(hub: Hub, tmp_path: Path) -> None:
    hub.failing = {"GET /large/": 500}
    assert "HTTP 500" in resolve(hub, tmp_path, "me/shapes")
    assert "CheckpointError" in resolve(hub, tmp_path, "me/shapes", HF_HUB_OFFLINE="1")


def test_of_several_processes_one_downloads_and_the_others_wait(hub: Hub, tmp_path: Path) -> None:
    hub.delay = 1.5
    processes = [start_resolving(hub, tmp_path, "me/shapes") for _ in range(3)]
    outputs = {process.communicate(timeout=60) for process in processes}
    assert len(outputs) == 1
    assert len(hub.downloads()) == 1
