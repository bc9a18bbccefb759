"""`igvg push` to a hub on the loopback: the files, the model card, and what is refused."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipelines.config.overrides import overlay_settings
from pipelines.config.presets import train_preset
from pipelines.networks import SHIPPED
from tests.support.hub_server import TOKEN, Hub, serve_hub
from tests.support.pipeline_runs import igvg, only_error

# What a run holds beside its checkpoint.
RECORDS = {"artifact.json", "log.jsonl"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as running:
        yield running


def list_checkpoint(run: Path) -> set[str]:
    """The names of the files of a run's checkpoint."""
    return {file.name for file in run.iterdir()} - RECORDS


def read_card(card: str) -> tuple[dict[str, object], str]:
    """The metadata and the text of a model card."""
    _, metadata, text = card.split("---\n", 2)
    return yaml.safe_load(metadata), text


def test_a_dry_run_writes_the_folder_and_asks_the_hub_nothing(hub: Hub, pipeline: Path, tmp_path: Path) -> None:
    result = igvg("push", pipeline / "run", "me/first", "--dry-run", TMPDIR=str(tmp_path), **hub.environment(tmp_path))
    assert result.returncode == 0, result.stderr
    folder = Path(result.stdout.strip())
    assert folder.is_relative_to(tmp_path)
    assert {file.name for file in folder.iterdir()} == {*list_checkpoint(pipeline / "run"), "README.md"}
    for name in list_checkpoint(pipeline / "run"):
        assert (folder / name).read_bytes() == (pipeline / "run" / name).read_bytes()
    assert not hub.requests
    assert "names no license: fill it in at its top" in result.stderr
    assert (folder / "README.md").read_text().startswith("---\n# Fill in the license")


def test_the_card_has_the_scores_of_the_run_its_data_sets_its_recipe_and_its_versions(
    hub: Hub, pipeline: Path, tmp_path: Path
) -> None:
    result = igvg(
        "push", pipeline / "run", "me/first", "--dry-run", "--license", "apache-2.0", TMPDIR=str(tmp_path),
        **hub.environment(tmp_path),
    )  # fmt: skip
    assert result.stderr == ""
    metadata, text = read_card((Path(result.stdout.strip()) / "README.md").read_text())
    assert metadata["license"] == "apache-2.0"
    assert metadata["library_name"] == "igvg"
    assert metadata["pipeline_tag"] == "zero-shot-object-detection"
    (index,) = metadata["model-index"]
    (entry,) = index["results"]
    scores = json.loads((pipeline / "scores" / "scores.json").read_text())
    assert index["name"] == "first"
    assert entry["dataset"] == {"name": "gRefCOCO", "type": "grefcoco", "split": "val"}
    assert {metric["type"]: metric["value"] for metric in entry["metrics"]} == {
        name: round(value, 2) for name, value in scores["metrics"].items() if value is not None
    }
    assert "Data sets: gRefCOCO." in text
    artifact = json.loads((pipeline / "run" / "artifact.json").read_text())
    settings = tomllib.loads(text.split("```toml\n")[1].split("```")[0])
    expected = overlay_settings(train_preset("base"), artifact["options"], "artifact.json")
    assert overlay_settings(train_preset("base"), settings, "README.md") == expected
    assert f"| torch | {artifact['versions']['torch']} |" in text
    assert 'Grounder.from_pretrained("me/first")' in text


def test_a_pushed_run_is_found_again_under_its_name(hub: Hub, pipeline: Path, tmp_path: Path) -> None:
    home = hub.environment(tmp_path / "home", HF_TOKEN=TOKEN)
    result = igvg("push", pipeline / "run", "me/first", "--private", "--license", "mit", **home)
    assert (result.returncode, result.stderr) == (0, "")
    repo = hub.repos["me/first"]
    assert result.stdout == f"{hub.address}/me/first/commit/{repo.revisions['main']}\n"
    assert repo.private
    assert repo.messages == ["igvg push run"]
    assert repo.files.keys() == {*list_checkpoint(pipeline / "run"), "README.md", ".gitattributes"}
    assert {host.split(":")[0] for host in hub.trusted} == {"127.0.0.1"}
    assert not [agent for agent in hub.agents if "torch" in agent]
    found = shutil.copytree(pipeline / "found", tmp_path / "found")
    split = ["--shards", pipeline / "shards", "--split", "val", "--set", "workers=0"]
    again = igvg("predict", "--checkpoint", "me/first", *split, "--out", found, **home)
    assert "is up to date: same input, same settings" in again.stderr


def test_a_later_push_replaces_the_checkpoint_and_a_branch_leaves_the_default_one(
    hub: Hub, pipeline: Path, tmp_path: Path
) -> None:
    home = hub.environment(tmp_path / "home", HF_TOKEN=TOKEN)
    hub.add_folder("me/first", pipeline / "shards" / "val")
    before = hub.repos["me/first"].add({"tokenizer.model": b"old", "notes.txt": b"mine", "old/config.json": b"{}"})
    result = igvg("push", pipeline / "run", "me/first", "--revision", "v2", "--with-log", "--license", "mit", **home)
    assert result.returncode == 0, result.stderr
    repo = hub.repos["me/first"]
    assert repo.revisions["main"] == before
    files = repo.commits[repo.revisions["v2"]]
    assert files.keys() == {
        *list_checkpoint(pipeline / "run"),
        "README.md",
        "log.jsonl",
        "notes.txt",
        "old/config.json",
    }


def test_a_later_push_keeps_the_license_that_was_filled_in(hub: Hub, pipeline: Path, tmp_path: Path) -> None:
    environment = hub.environment(tmp_path, HF_TOKEN=TOKEN)
    first = igvg("push", pipeline / "run", "me/first", **environment)
    assert first.returncode == 0, first.stderr
    assert "names no license" in first.stderr
    repo = hub.repos["me/first"]
    card = repo.files["README.md"].decode()
    filled = "license: other\nlicense_name: mine\nlicense_link: https://example.org/terms\n"
    repo.add({**repo.files, "README.md": card.replace(card.splitlines()[1] + "\n", filled).encode()})
    second = igvg("push", pipeline / "run", "me/first", **environment)
    assert second.returncode == 0, second.stderr
    assert "names no license" not in second.stderr
    metadata, _ = read_card(repo.files["README.md"].decode())
    assert [metadata[key] for key in ("license", "license_name", "license_link")] == [
        "other", "mine", "https://example.org/terms"
    ]  # fmt: skip
    third = igvg("push", pipeline / "run", "me/first", "--license", "mit", **environment)
    assert third.returncode == 0, third.stderr
    metadata, _ = read_card(repo.files["README.md"].decode())
    assert metadata["license"] == "mit"
    assert "license_name" not in metadata


def test_a_checkpoint_without_a_record_is_told_what_to_do(hub: Hub, tmp_path: Path) -> None:
    result = igvg("push", SHIPPED["shapes"], "me/first", **hub.environment(tmp_path))
    assert "holds a checkpoint, but no artifact.json, of which the model card is made; give the fol" in only_error(
        result
    )
    assert not hub.requests


def test_scores_are_those_that_are_named(hub: Hub, pipeline: Path, tmp_path: Path) -> None:
    run = shutil.copytree(pipeline / "run", tmp_path / "alone" / "run")
    scores = {"dataset": "refcoco", "split": "testA", "metrics": {"mIoU": 50.123, "oIoU": None}, "resolution": 320}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    words = ("push", run, "me/first", "--dry-run", "--license", "mit")
    environment = {"TMPDIR": str(tmp_path), **hub.environment(tmp_path)}
    result = igvg(*words, "--scores", tmp_path / "scores.json", **environment)
    metadata, text = read_card((Path(result.stdout.strip()) / "README.md").read_text())
    (entry,) = metadata["model-index"][0]["results"]
    assert entry["dataset"] == {"name": "RefCOCO", "type": "refcoco", "split": "testA", "args": {"resolution": 320}}
    assert [(metric["type"], metric["value"]) for metric in entry["metrics"]] == [("mIoU", 50.12)]
    assert "### RefCOCO, testA (masks at 320 × 320 pixels)" in text
    without = igvg(*words, **environment)
    assert "The model card has no scores" in without.stderr
    (tmp_path / "scores.json").write_text('{"metrics": 3}')
    error = only_error(igvg(*words, "--scores", tmp_path / "scores.json", **environment))
    assert "scores.json: holds no scores; give a folder that igvg score --out made" in error


def test_what_is_no_finished_run_is_refused_before_the_hub_is_asked(hub: Hub, pipeline: Path, tmp_path: Path) -> None:
    home = hub.environment(tmp_path / "home", HF_TOKEN=TOKEN)
    run = shutil.copytree(pipeline / "run", tmp_path / "run")
    assert "was made by igvg predict; give a run of igvg train" in only_error(
        igvg("push", pipeline / "found", "me/first", **home)
    )
    assert "is no folder; give a finished run" in only_error(igvg("push", tmp_path / "none", "me/first", **home))
    assert "me is no repository of the hub; give USER/REPO" in only_error(igvg("push", run, "me", **home))
    (run / "tokenizer.json").unlink()
    assert "tokenizer.json is missing: the artifact is damaged" in only_error(igvg("push", run, "me/first", **home))
    (run / "artifact.json").rename(run / "unfinished.json")
    assert "its work is unfinished: run its command again" in only_error(igvg("push", run, "me/first", **home))
    assert not hub.requests


def test_a_hub_that_refuses_an_upload_is_one_line(hub: Hub, pipeline: Path, tmp_path: Path) -> None:
    words = ("push", pipeline / "run", "me/first")
    error = only_error(igvg(*words, **hub.environment(tmp_path, HF_TOKEN="hf_wrong")))
    assert f"{hub.address} refuses the upload to me/first; log in with hf auth login" in error
    assert "hf_wrong" not in error
    assert "HF_HUB_OFFLINE forbids the upload" in only_error(
        igvg(*words, **hub.environment(tmp_path, HF_HUB_OFFLINE="1", HF_TOKEN=TOKEN))
    )
    hub.failing = {"/commit/": 500}
    error = only_error(igvg(*words, **hub.environment(tmp_path, HF_TOKEN=TOKEN)))
    assert "failed to take the upload to me/first (HTTP 500); try again later" in error
    assert hub.repos["me/first"].files.keys() == {".gitattributes"}
    gone = hub.environment(tmp_path, HF_TOKEN=TOKEN) | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert "could not be uploaded to http://127.0.0.1:9 (Connect" in only_error(igvg(*words, **gone))
