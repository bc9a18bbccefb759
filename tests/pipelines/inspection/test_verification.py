"""Damage of every kind, in every file of every kind of artifact, is named."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pipelines.inspection.findings import Verification
from pipelines.inspection.inspection import inspect_path
from pipelines.inspection.verification import verify
from pipelines.stages.artifact import UNFINISHED, Stage
from shards.errors import ArtifactError
from tests.support.pipeline_runs import run_here
from tests.support.published_network import make_published

KINDS = (
    "shards", "tars", "run", "found", "scores", "coco", "labels", "png", "grefcoco", "again", "own", "imported",
    "report",
)  # fmt: skip


@pytest.fixture(scope="module")
def artifacts(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an artifact of every kind."""
    home = tmp_path_factory.mktemp("artifacts")
    split = ("--shards", pipeline / "shards", "--split", "val")
    found, images = pipeline / "found", pipeline / "published" / "images" / "train2014"
    for name in ("shards", "run", "found", "scores"):
        shutil.copytree(pipeline / name, home / name)
    run_here("convert", found, *split, "--out", home / "coco")
    run_here("convert", found, *split, "--to", "labelme", "--out", home / "labels")
    run_here("convert", found, *split, "--to", "png", "--out", home / "png")
    run_here("convert", *split, "--to", "grefcoco", "--out", home / "grefcoco")
    run_here("prepare", "webdataset", "--annotations", pipeline / "shards" / "val", "--out", home / "tars")
    run_here("predict", "--from", found, "--set", "postprocess.score_threshold=0.2", "--out", home / "again")
    image = sorted(images.iterdir())[0]
    save = ("--save", "overlays,masks,cutouts,json,coco")
    run_here("predict", "--checkpoint", "shapes", "--image", image, "--text", "a square", *save, "--out", home / "own")
    torch.save({"state_dict": make_published()}, home / "published.pth")
    run_here("import", home / "published.pth", "--out", home / "imported")
    run_here("report", found, *split, "--out", home / "report")
    (home / "published.pth").unlink()
    return home


@pytest.fixture
def damaged(artifacts: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of one artifact."""
    return Path(shutil.copytree(artifacts / request.param, tmp_path / request.param))


def list_files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def named(report: Verification) -> set[str]:
    return {finding.file for finding in report.findings}


def verify_changed(folder: Path, name: str, change: Callable[[bytes], bytes | None], *, full: bool) -> Verification:
    """Verify a folder while a file has other bytes, or is not there."""
    file = folder / name
    content = file.read_bytes()
    changed = change(content)
    if changed is None:
        file.unlink()
    else:
        file.write_bytes(changed)
    try:
        return verify(folder, full=full)
    finally:
        file.write_bytes(content)


def flip(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_artifact_is_sound(artifacts: Path, kind: str, full: bool) -> None:
    report = verify(artifacts / kind, full=full)
    assert report.findings == ()
    assert report.notes == ()
    assert report.files == len(list_files(artifacts / kind))
    assert sum(report.units.values()) == 1


@pytest.mark.parametrize("damaged", KINDS, indirect=True)
def test_every_file_that_is_deleted_is_named(damaged: Path) -> None:
    for name in list_files(damaged):
        if name == "artifact.json":
            continue
        assert name in named(verify_changed(damaged, name, lambda _: None, full=False)), name


@pytest.mark.parametrize("damaged", KINDS, indirect=True)
def test_a_deleted_record_is_named(damaged: Path) -> None:
    (damaged / "artifact.json").unlink()
    if damaged.name in ("imported", "tars"):
        # A checkpoint alone, as one of the hub; shards that another program made and indexed.
        assert "has no artifact.json" in verify(damaged).notes[0]
    elif damaged.name in ("coco", "labels", "png", "grefcoco", "report"):
        # Nothing else in them says that igvg made them.
        with pytest.raises(ArtifactError, match=r"expected artifact\.json"):
            verify(damaged)
    else:
        assert "artifact.json" in named(verify(damaged))


@pytest.mark.parametrize("damaged", KINDS, indirect=True)
def test_every_file_that_is_cut_off_is_named(damaged: Path) -> None:
    for name in list_files(damaged):
        for change in (lambda content: content[:-1], lambda content: content[: len(content) // 2], lambda _: b""):
            assert name in named(verify_changed(damaged, name, change, full=False)), name


@pytest.mark.parametrize("damaged", KINDS, indirect=True)
def test_every_file_with_a_flipped_bit_is_named_in_full(damaged: Path) -> None:
    for name in list_files(damaged):
        size = 8 * (damaged / name).stat().st_size
        for bit in {0, size // 3, size // 2 + 5, size - 1}:
            report = verify_changed(damaged, name, lambda content, bit=bit: flip(content, bit), full=True)  # type: ignore[misc]
            assert name in named(report), (name, bit)


@pytest.mark.parametrize("damaged", ["found", "shards"], indirect=True)
def test_every_flipped_bit_of_a_record_is_named(damaged: Path) -> None:
    size = 8 * (damaged / "artifact.json").stat().st_size
    for bit in range(0, size, 29):
        report = verify_changed(damaged, "artifact.json", lambda content, bit=bit: flip(content, bit), full=False)  # type: ignore[misc]
        assert "artifact.json" in named(report), bit


@pytest.mark.parametrize("damaged", ["run"], indirect=True)
def test_a_flipped_bit_that_changes_no_value_is_named(damaged: Path) -> None:
    assert b"1e-08" in (damaged / "artifact.json").read_bytes()
    report = verify_changed(damaged, "artifact.json", lambda content: content.replace(b"1e-08", b"1E-08"), full=False)
    assert [one.what for one in report.findings] == ["differs from its checksum"]


@pytest.mark.parametrize("damaged", KINDS, indirect=True)
def test_extra_files_are_named(damaged: Path) -> None:
    names = ["extra.txt", ".predictions.jsonl.1.tmp", "deep/er/extra.bin"]
    names += [f"{Path(name).parent / 'more.tar'}" for name in list_files(damaged) if name.count("/") == 1][:1]
    for name in names:
        (damaged / name).parent.mkdir(parents=True, exist_ok=True)
        (damaged / name).write_bytes(b"1")
    assert named(verify(damaged)) == set(names)


def test_the_record_of_a_shard_that_differs_is_named(artifacts: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifacts / "shards", tmp_path / "shards"))
    index = json.loads((folder / "val" / "index.json").read_text())
    for row in index["rows"]:
        offset, extension = row[index["columns"].index("picture_offset")], row[1]
        report = verify_changed(
            folder, "val/val-000000.tar", lambda content, o=offset: flip(content, 8 * o + 3), full=True
        )  # type: ignore[misc]
        (finding,) = [one for one in report.findings if one.what == f"member {row[0]}.{extension} is damaged"]
        assert (finding.file, finding.record) == ("val/val-000000.tar", f"key {row[0]}")


def test_a_shard_whose_padding_differs_is_named(artifacts: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifacts / "shards", tmp_path / "shards"))
    (finding,) = verify_changed(
        folder, "val/val-000000.tar", lambda content: flip(content, -8 + 8 * len(content)), full=True
    ).findings
    assert finding.what == "differs from its SHA-256, outside of its records"


def test_records_that_are_extra_or_missing_are_named(artifacts: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifacts / "shards", tmp_path / "shards"))
    index = json.loads((folder / "val" / "index.json").read_text())
    first, second = (row[0] for row in index["rows"])
    file = folder / "val" / "val-000000.tar"
    with tarfile.open(file) as archive:
        members = [(member.name, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name.replace(second, "other"))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    found = {(one.file, one.record, one.what) for one in verify(folder, full=True).findings}
    assert ("val/val-000000.tar", "key other", "is not in index.json") in found
    assert ("val/val-000000.tar", f"key {second}", "is missing") in found
    assert not [record for _, record, _ in found if record == f"key {first}"]


def test_an_index_that_asks_for_more_than_there_is_reads_no_more_than_there_is(artifacts: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifacts / "shards", tmp_path / "shards"))
    index = json.loads((folder / "val" / "index.json").read_text())
    index["rows"][0][index["columns"].index("picture_size")] = 10**15
    index["rows"][1][index["columns"].index("json_offset")] = 10**15
    (folder / "val" / "index.json").write_text(json.dumps(index))
    found = {(one.record, one.what.split(" after")[0]) for one in verify(folder, full=True).findings}
    keys = [row[0] for row in index["rows"]]
    assert (f"key {keys[0]}", f"member {keys[0]}.jpg breaks off") in found
    assert (f"key {keys[1]}", f"member {keys[1]}.json breaks off") in found


def test_the_line_of_a_prediction_that_is_none_is_named(artifacts: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifacts / "found", tmp_path / "found"))
    report = verify_changed(
        folder, "predictions.jsonl", lambda content: content.replace(b'"boxes":[', b'"boxes":[[', 1), full=True
    )
    assert [one.record for one in report.findings if one.record] == ["line 1"]
    swap = lambda content: b"".join([*(lines := content.splitlines(keepends=True))[1:2], lines[0], *lines[2:]])  # noqa: E731
    report = verify_changed(folder, "predictions.jsonl", swap, full=True)
    assert any("the raw outputs about" in one.what and one.record == "line 1" for one in report.findings)


def test_weights_that_are_not_finite_are_named(artifacts: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifacts / "run", tmp_path / "run"))
    (folder / "artifact.json").unlink()
    (folder / "log.jsonl").unlink()
    state = load_file(folder / "model.safetensors")
    state["encoder.layers.0.image_expert.out_proj.bias"][3] = -torch.inf
    state["image_projection.weight"] = state["image_projection.weight"].to(torch.bfloat16)
    state["image_projection.weight"][2, 1] = torch.nan
    save_file(state, folder / "model.safetensors")
    report = verify(folder, full=True)
    assert [one.record for one in report.findings] == [
        "tensor encoder.layers.0.image_expert.out_proj.bias",
        "tensor image_projection.weight",
    ]


def test_unfinished_work_is_named(tmp_path: Path) -> None:
    Stage(name="train", out=tmp_path / "runs" / "first", inputs={}, options={}).start()
    (finding,) = verify(tmp_path).findings
    assert (finding.file, finding.what) == (
        f"runs/first/{UNFINISHED}", "igvg train has not ended: run its command again",
    )  # fmt: skip


def test_large_masks_of_one_color_are_sound(tmp_path: Path) -> None:
    """A byte of theirs stands for a thousand pixels, and they are no bombs."""
    stage = Stage(name="predict", out=tmp_path / "found", inputs={}, options={})
    stage.start()
    Image.new("L", (8200, 6100)).save(stage.folder / "mask.png")
    stage.finish({})
    assert verify(tmp_path, full=True).findings == ()
    assert inspect_path(stage.folder / "mask.png").facts["pixels"] == "8200 × 6100"


def test_artifacts_inside_others_and_side_by_side_are_verified(artifacts: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(artifacts, tmp_path / "home"))
    shutil.move(home / "scores", home / "found" / "score")
    report = verify(home)
    assert report.findings == ()
    assert report.units == {
        "convert": 4, "import": 1, "predict": 3, "prepare": 2, "report": 1, "score": 1, "train": 1,
    }  # fmt: skip
    (home / "found" / "score" / "scores.json").unlink()
    assert named(verify(home)) == {"found/score/scores.json"}


def test_an_artifact_of_an_earlier_igvg_is_read_without_digests(artifacts: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifacts / "found", tmp_path / "found"))
    record = json.loads((folder / "artifact.json").read_text())
    del record["digests"], record["checksum"]
    (folder / "artifact.json").write_text(json.dumps(record))
    report = verify(folder, full=True)
    assert report.findings == ()
    assert "earlier igvg" in report.notes[0]
    size = (folder / "raw" / "chunk-000000.npz").stat().st_size
    report = verify_changed(folder, "raw/chunk-000000.npz", lambda content: flip(content, 4 * size), full=True)
    assert named(report) == {"raw/chunk-000000.npz"}


def test_a_record_that_lists_files_outside_of_its_folder_is_refused(artifacts: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifacts / "scores", tmp_path / "scores"))
    record = json.loads((folder / "artifact.json").read_text())
    record["files"] |= {"../../secret": 3, "/etc/passwd": 1}
    del record["checksum"]
    (folder / "artifact.json").write_text(json.dumps(record))
    found = [one.what for one in verify(folder, full=True).findings]
    assert sum("no file of the artifact" in what for what in found) == 2


@pytest.mark.parametrize("content", [None, "file", "empty"])
def test_what_igvg_did_not_make_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "path"
    if content == "file":
        path.write_text("x")
    elif content == "empty":
        path.mkdir()
    with pytest.raises(ArtifactError, match="give a folder that igvg made"):
        verify(path)
