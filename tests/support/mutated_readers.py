"""Changed files of every reader but those of published annotations: shards, predictions, results, labels, settings."""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.config.overrides import read_settings
from pipelines.config.presets import train_preset
from pipelines.data.image_decoding import decode_image
from pipelines.evaluation.evaluator import evaluate_split
from pipelines.experiments.experiment import read_experiment
from pipelines.prediction.coco_export import write_annotations
from pipelines.prediction.coco_import import CocoResults, read_results
from pipelines.prediction.labelme_import import read_labelme
from pipelines.prediction.png_import import read_png_masks
from pipelines.prediction.prediction import Prediction
from shards.foreign_shards import check_members, find_tars, read_records
from shards.index import INDEX, write_index
from shards.indexing import index_shard, index_split
from shards.masks import decode_mask
from shards.reader import ShardReader
from tests.support.drawn_shards import predict_truth, write_lines, write_shards
from tests.support.mutated_annotations import check_record
from tests.support.mutated_checkpoints import FILES, change_file, read_checkpoint_folder
from tests.support.mutations import change_bytes, change_value, encode_json
from tests.support.refusals import read_or_refuse
from tests.support.small_network import save_small_network

_TOML = b"""out = "runs/a"
[prepare.first]
dataset = "grefcoco"
annotations = "a"
images = ["b", "c"]
[train]
preset = "tiny"
epochs = 3
optimizer.head_lr = 2e-3
[predict]
splits = ["first/val"]
"""
_SETTINGS = b"epochs = 3\nbatch_size = 4\n[optimizer]\nhead_lr = 2e-3\n[loss]\nbox = 1.5\n"
_TOKENS = (
    b"nan",
    b"-inf",
    b"9" * 5000,
    b'""',
    b"[]",
    b"{}",
    b"\n",
    b'"""',
    b"[a]\n",
    b"a.b = 1\n",
    b"true",
    b"\xff",
    b"\0",
)


def write_whole(folder: Path) -> None:
    """Everything that is changed, whole: folder/whole is copied for each reading."""
    shards = write_shards(folder)
    with ShardReader(shards, "val") as reader:
        write_annotations(folder / "annotations.json", reader)
    save_small_network(folder / "checkpoint")
    lines = predict_truth()
    write_lines(folder / "predictions.jsonl", lines)
    masks = folder / "png"
    masks.mkdir()
    entries = []
    for number, line in enumerate(lines):
        Image.fromarray(decode_mask(line["mask"]).astype(np.uint8) * 255).save(masks / f"{number}.png")
        entries.append(
            {"file": f"{number}.png", "image": "a.png", "text": "it", "id": line["id"], "boxes": line["boxes"]}
        )
    (masks / INDEX).write_text(json.dumps(entries))


def read_changed(kind: str, whole: Path, folder: Path, seed: int) -> str:
    """Change a file of `whole` in `folder`, which is made anew, and read it; says what came of it.

    Raises:
        AssertionError: what was read contradicts itself, or the refusal is not as it should be.
    """
    source = random.Random(f"{kind}/{seed}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    change, read = KINDS[kind]
    change(whole, folder, source)
    return read_or_refuse(lambda: read(whole, folder), folder, f"{kind} {seed}")


def _change_json(data: bytes, source: random.Random) -> bytes:
    if source.randrange(3):
        return encode_json(change_value(json.loads(data), source), source)
    return change_bytes(data, source)


def _change_lines(data: bytes, source: random.Random) -> bytes:
    lines = data.splitlines()
    index = source.randrange(len(lines))
    lines[index] = _change_json(lines[index], source)
    return b"\n".join(lines) + b"\n"


def _change_toml(data: bytes, source: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    index, other = source.randrange(len(lines)), source.randrange(len(lines))
    action = source.randrange(5)
    key, equals, _ = lines[index].partition(b"=")
    if action == 0:
        lines.insert(other, lines[index])
    elif action == 1:
        del lines[index]
    elif action in (2, 3) and equals:
        depth = source.choice((1, 300, 5000))
        value = source.choice(
            (*_TOKENS, b"[" * depth + b"]" * depth, b"-1", b"1e400", b'"../x"', b"1979-05-27", b'"\\u0000"')
        )
        lines[index] = key + b"= " + value + b"\n"
    else:
        return change_bytes(data, source)
    return b"".join(lines)


def _change_tar(whole: Path, folder: Path, source: random.Random) -> Path:
    """A tar of whose members one is changed, and at times its header or its name; or of which bytes are changed."""
    file = folder / "val" / "val-000000.tar"
    file.parent.mkdir()
    original = next((whole / "shards" / "val").glob("*.tar"))
    if not source.randrange(4):
        file.write_bytes(change_bytes(original.read_bytes(), source))
        return file
    with tarfile.open(original) as archive:
        members = [(info, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    index = source.randrange(len(members))
    info, content = members[index]
    action = source.randrange(6)
    if action == 0:
        names = (
            "../a.json",
            "/a.png",
            "a\nb.json",
            "a\0.json",
            "a",
            ".json",
            "a.b.json",
            "a/../b.png",
            "\udcff.json",
            "a" * 300,
        )
        info.name = source.choice(names)
    elif action == 1:
        info.type = source.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"z", b"S"))
        info.linkname, content = source.choice(("/etc/passwd", "a.png", "..")), b""
    elif action == 2:
        info.pax_headers = {
            source.choice(("size", "path", "GNU.sparse.map")): source.choice(("5", "../x", "-1", "a\0b"))
        }
    elif info.name.endswith("json"):
        content = _change_json(content, source)
    else:
        content = change_bytes(content, source)
    info.size = len(content)
    members[index] = info, content
    if not source.randrange(8):
        members.insert(source.randrange(len(members)), members[index])
    with tarfile.open(file, "w", format=source.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return file


def _change_record(whole: Path, folder: Path, source: random.Random) -> None:
    """Shards of one changed record, with an index that fits them if one can be made."""
    _change_tar(whole, folder, source)


def _change_index(whole: Path, folder: Path, source: random.Random) -> None:
    shutil.copytree(whole / "shards" / "val", folder / "val")
    file = folder / "val" / INDEX
    file.write_bytes(_change_json(file.read_bytes(), source))


def _change_one(
    name: str, change: Callable[[bytes, random.Random], bytes]
) -> Callable[[Path, Path, random.Random], None]:
    def write(whole: Path, folder: Path, source: random.Random) -> None:
        (folder / Path(name).name).write_bytes(change((whole / name).read_bytes(), source))

    return write


def _change_results(whole: Path, folder: Path, source: random.Random) -> None:
    images = json.loads((whole / "annotations.json").read_bytes())["images"]
    entries: list[Any] = [
        {"image_id": image["id"], "category_id": 1, "score": 0.5, "bbox": [1, 2, 3, 4], "segmentation": segmentation}
        for image, segmentation in zip(images, (predict_truth()[0]["mask"], [[1, 1, 9, 1, 9, 9]], None), strict=False)
    ]
    (folder / "results.json").write_bytes(_change_json(json.dumps(entries).encode(), source))


def _change_labels(whole: Path, folder: Path, source: random.Random) -> None:
    expressions = [
        {"id": f"a/{n}", "text": text, "group_id": n, "predicted": ["boxes", "mask"], "no_target": None}
        for n, text in enumerate(("red", "blue"))
    ]
    shapes = [
        {"label": "red", "group_id": 0, "shape_type": "polygon", "points": [[1, 1], [9, 1], [9, 5]]},
        {"label": "blue", "group_id": 1, "shape_type": "rectangle", "points": [[1, 1], [9, 5]], "score": 0.5},
    ]
    document = {"imagePath": "1.png", "imageHeight": 6, "imageWidth": 10, "expressions": expressions, "shapes": shapes}
    if source.randrange(2):
        del document["expressions"]
        shapes[:] = [shape | {"label": f"phrase {n}"} for n, shape in enumerate(shapes)]
    (folder / "label.json").write_bytes(_change_json(json.dumps(document).encode(), source))


def _change_masks(whole: Path, folder: Path, source: random.Random) -> None:
    shutil.copytree(whole / "png", folder / "png")
    file = folder / "png" / source.choice((INDEX, "0.png"))
    data = file.read_bytes()
    file.write_bytes(_change_json(data, source) if file.name == INDEX else change_bytes(data, source))


def _read_foreign(whole: Path, folder: Path) -> None:
    for files in find_tars(folder).values():
        for file in files:
            check_members(file)
            for _, record in read_records(file, index_shard(file)):
                check_record(record)


def _read_record(whole: Path, folder: Path) -> None:
    write_index(folder, index_split(folder, "val"))
    _read_shards(whole, folder)


def _read_shards(whole: Path, folder: Path) -> None:
    with ShardReader(folder, "val") as reader:
        for index in range(len(reader)):
            record = reader.record(index)
            record.to_json()
            assert all(0 <= k < len(record.instances) for one in record.expressions for k in one.instances)
            # Decoding here is what training does; the file is not known to the decoder, only the record.
            image = decode_image(reader.image(index), f"{reader.shard_file(index)}")
            assert image.ndim == 3


def _check_predictions(predictions: list[Prediction]) -> None:
    for one in predictions:
        assert one.boxes is not None or one.mask is not None
        assert one.mask is None or list(decode_mask(one.mask).shape) == one.mask["size"]
        assert one.boxes is None or np.isfinite(np.array(one.boxes, dtype=float)).all()


def _score(whole: Path, folder: Path) -> None:
    outcomes = evaluate_split(folder / "predictions.jsonl", whole / "shards", "val")
    assert len(outcomes.ids) == len(predict_truth())


def _read_results(whole: Path, folder: Path) -> None:
    results = folder / "results.json"
    if not results.exists():
        results.write_text("[]")
    annotations = folder if (folder / "annotations.json").exists() else whole
    with ShardReader(whole / "shards", "val") as reader:
        _check_predictions(
            read_results(CocoResults(files=[results], annotations=annotations / "annotations.json"), reader)
        )


def _read_labels(whole: Path, folder: Path) -> None:
    with ShardReader(whole / "shards", "val") as reader:
        file = folder / "label.json"
        foreign = b'"expressions"' not in file.read_bytes()
        _check_predictions(read_labelme([file], reader if foreign else None))


KINDS: dict[str, tuple[Callable[[Path, Path, random.Random], object], Callable[[Path, Path], None]]] = {
    "foreign shards": (_change_tar, _read_foreign),
    "records": (_change_record, _read_record),
    "index.json": (_change_index, _read_shards),
    "predictions": (_change_one("predictions.jsonl", _change_lines), _score),
    "COCO results": (_change_results, _read_results),
    "COCO annotations": (_change_one("annotations.json", _change_json), _read_results),
    "labelme": (_change_labels, _read_labels),
    "PNG masks": (_change_masks, lambda _, folder: _check_predictions(read_png_masks(folder / "png", None))),
    "experiment": (
        lambda _, folder, source: (folder / "a.toml").write_bytes(_change_toml(_TOML, source)),
        lambda _, folder: (read_experiment(folder / "a.toml"), None)[1],
    ),
    **{f"checkpoint {name}": (change_file(name), read_checkpoint_folder) for name in FILES},
    "settings": (
        lambda _, folder, source: (folder / "a.toml").write_bytes(_change_toml(_SETTINGS, source)),
        lambda _, folder: (read_settings(train_preset("tiny"), folder / "a.toml"), None)[1],
    ),
}  # fmt: skip
"""What writes a changed file of each kind, and what reads it."""
