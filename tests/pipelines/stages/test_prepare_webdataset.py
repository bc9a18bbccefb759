"""Shards that others wrote are copied, checked and indexed, and any reader of WebDataset streams the result."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest

from pipelines.stages import prepare_webdataset
from pipelines.stages.artifact import read_artifact
from shards.errors import ArtifactError, DataError
from shards.reader import ShardReader
from tests.support.paths import ROOT
from tests.support.pipeline_runs import igvg, only_error
from tests.support.tiny_shards import Item, fill_masks, make_items, write_items

WRITE = """
    import json, sys
    import webdataset
    samples = json.loads(sys.stdin.read())
    for first in range(0, len(samples), 2):
        with webdataset.TarWriter(f"{sys.argv[1]}/val-{first:06d}.tar") as writer:
            for key, extension, image, record in samples[first : first + 2]:
                with open(image, "rb") as stream:
                    writer.write({"__key__": key, extension: stream.read(), "json": record})
"""
STREAM = """
    import hashlib, json, sys
    import webdataset
    from webdataset import utils
    utils.enforce_security = True
    samples = webdataset.WebDataset(sys.argv[1:], shardshuffle=False)
    found = [[one["__key__"], hashlib.sha256(one["png"]).hexdigest(), json.loads(one["json"])] for one in samples]
    print(json.dumps(found))
"""


def run_webdataset(code: str, *arguments: Path, given: str = "") -> str:
    """In a process of its own: it leaves its files to the garbage collector, which warns, and loads torch."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, input=given, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    drawn = make_items(tmp_path_factory.mktemp("images"), [2, 0, 3], "png")
    return [(fill_masks(record), file) for record, file in drawn]


@pytest.fixture(scope="module")
def theirs(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards that webdataset wrote."""
    folder = tmp_path_factory.mktemp("theirs")
    samples = [[f"n{record.image_id}", "png", str(file), record.to_json()] for record, file in items]
    run_webdataset(WRITE, folder, given=json.dumps(samples))
    return folder


def test_shards_of_webdataset_become_a_prepared_folder(theirs: Path, items: list[Item], tmp_path: Path) -> None:
    result = prepare_webdataset.run(theirs, tmp_path / "out")
    counts = {"pictures": 3, "instances": 3, "expressions": 5, "empty": 3, "single": 2, "multiple": 0}
    assert result.counts == {"splits": {"val": counts}, "skipped": {}}
    assert read_artifact(tmp_path / "out", "prepare").fingerprint
    with ShardReader(tmp_path / "out", "val") as reader:
        assert list(reader.records()) == [record for record, _ in items]
        assert [reader.image(index) for index in range(3)] == [file.read_bytes() for _, file in items]
    for file in theirs.glob("*.tar"):
        assert (tmp_path / "out/val" / file.name).read_bytes() == file.read_bytes()


def test_webdataset_streams_what_was_prepared(theirs: Path, items: list[Item], tmp_path: Path) -> None:
    prepare_webdataset.run(theirs, tmp_path / "out")
    write_items(tmp_path / "ours", items)
    for folder, key in ((tmp_path / "out/val", "n{}"), (tmp_path / "ours/val", "{:012d}")):
        assert json.loads(run_webdataset(STREAM, *sorted(folder.glob("*.tar")))) == [
            [key.format(record.image_id), hashlib.sha256(file.read_bytes()).hexdigest(), record.to_json()]
            for record, file in items
        ]


def test_the_documented_lines_stream_the_shards(tmp_path: Path) -> None:
    items = make_items(tmp_path / "images", [3, 1, 2], "JPG")
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(import json.*?WebDataset.*?)```", page, re.DOTALL)
    assert found
    write_items(tmp_path / "shards" / "grefcoco", items)
    command = [sys.executable, "-W", "ignore::UserWarning", "-c", found[1]]
    result = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    expected = [f"{record.image_id:012d} {len(file.read_bytes())} {len(record.expressions)}" for record, file in items]
    assert result.stdout.splitlines() == expected


def test_finished_work_is_recognized_and_other_shards_are_refused(theirs: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(theirs, tmp_path / "source"))
    assert not prepare_webdataset.run(source, tmp_path / "out").cached
    assert prepare_webdataset.run(source, tmp_path / "out").cached
    (source / "val-000002.tar").unlink()
    with pytest.raises(ArtifactError, match=r"input val/val-000002\.tar differs"):
        prepare_webdataset.run(source, tmp_path / "out")
    assert prepare_webdataset.run(source, tmp_path / "out", force=True).counts["splits"]["val"]["pictures"] == 2


def test_interrupted_work_ends_with_the_same_bytes(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_webdataset.run(theirs, tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(prepare_webdataset, "write_index", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare_webdataset.run(theirs, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    prepare_webdataset.run(theirs, tmp_path / "out")
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert files
    for file in files:
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_an_expression_id_that_is_given_twice_is_refused(theirs: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(theirs, tmp_path / "source"))
    shutil.copy(source / "val-000000.tar", source / "train-000000.tar")
    with pytest.raises(DataError, match="is given twice"):
        prepare_webdataset.run(source, tmp_path / "out")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["source"]


def test_a_key_of_two_shards_is_named_with_both(theirs: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(theirs, tmp_path / "source"))
    shutil.copy(source / "val-000000.tar", source / "val-000009.tar")
    with pytest.raises(
        DataError, match=r"key n100: is in val-000000.tar, too; give each record of a split a key"
    ) as error:
        prepare_webdataset.run(source, tmp_path / "out")
    assert error.value.file == source / "val-000009.tar"


def test_an_empty_shard_is_taken_and_shards_that_hold_nothing_are_not(theirs: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(theirs, tmp_path / "source"))
    with tarfile.open(source / "val-000001.tar", "w"):
        pass
    assert prepare_webdataset.run(source, tmp_path / "out").counts["splits"]["val"]["pictures"] == 3
    for file in theirs.glob("*.tar"):
        (source / file.name).unlink()
    with pytest.raises(DataError, match="no tar holds a record"):
        prepare_webdataset.run(source, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_command_prepares_shards_and_refuses_what_does_not_go_with_them(theirs: Path, tmp_path: Path) -> None:
    command = ("prepare", "webdataset", "--annotations", theirs, "--out", tmp_path / "out")
    result = igvg(*command)
    assert result.returncode == 0, result.stderr
    assert "val" in result.stdout
    assert igvg("verify", tmp_path / "out", "--full").returncode == 0
    assert igvg(*command, "--limit", "2").returncode == 2
    marker = tmp_path / "ran"
    line = only_error(igvg("prepare", "webdataset", "--annotations", f"pipe:touch {marker}", "--out", tmp_path / "x"))
    assert "no such folder" in line
    assert not marker.exists()
