"""Documents in JSON, TOML, CSV and pickles described: scores, COCO, labelme, annotations, settings, pairs and more."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.config.overrides import overlay_settings, read_toml
from pipelines.config.presets import train_preset
from pipelines.config.settings import PredictSettings, ScoreSettings, TrainSettings
from pipelines.data.image_pairs import read_pairs
from pipelines.inspection.artifact_descriptions import summarize_scores
from pipelines.inspection.description import Cell, Description, Setting, Table, measure_file, measure_folder
from pipelines.inspection.settings_used import compare_settings, flatten
from shards.errors import DataError, SettingsError
from shards.files import read_json
from shards.index import is_image_name

# Bytes; a larger document takes minutes and gigabytes to parse.
_LARGEST = 1 << 29
_LONGEST_LINE = 1 << 20
_ANNOTATIONS = re.compile(r"(g?refs|Ref-ZOM)\([a-z]+\)\.(json|p)|instances?\.json")
_STAGES = ("prepare", "train", "predict", "score")
LOOKED_FOR = "an index, raw outputs, scores, a comparison, a sweep, COCO, labelme, annotations, a record"


def describe_json(file: Path) -> Description:
    """A JSON document of a known kind.

    Raises:
        DataError: it is of none.
    """
    if file.stat().st_size > _LARGEST:
        what = f"JSON of {file.stat().st_size} bytes, which is too large to read here"
        return Description(path=str(file), kind="JSON", what=what, **measure_file(file))
    document = read_json(file)
    found = _describe_list(document) if isinstance(document, list) else _describe_object(document)
    if found is None:
        keys = ", ".join(list(document)[:6]) if isinstance(document, dict) else type(document).__name__
        what = f"is JSON ({keys}) of no kind that was looked for: {LOOKED_FOR}"
        raise DataError(what, file=file, remedy="give a file or folder of igvg")
    kind, what, facts, tables = found
    return Description(
        path=str(file), kind=kind, what=what, **measure_file(file), facts=facts, tables=tuple(tables)
    )  # fmt: skip


Found = tuple[str, str, dict[str, Cell], list[Table]]


def _describe_object(document: Any) -> Found | None:
    if not isinstance(document, dict):
        return None
    keys = document.keys()
    if {"metrics", "dataset", "split"} <= keys:
        return "scores", "scores of igvg score", *summarize_scores(document)
    if {"a", "b", "differences"} <= keys:
        return "comparison", "a comparison of igvg compare", *_summarize_comparison(document)
    if {"settings", "best", "varied"} <= keys:
        facts = {"dataset": document.get("dataset"), "split": document.get("split"),
                 "settings": len(document["settings"]), "varied": ", ".join(document["varied"])}  # fmt: skip
        return "sweep", "scores of igvg sweep", facts, []
    if {"variants", "setting"} <= keys:
        return "ablation", "scores of igvg ablate", {"setting": document["setting"],
                                                     "variants": len(document["variants"])}, []  # fmt: skip
    if {"images", "annotations"} <= keys and isinstance(document["images"], list):
        return "COCO", *_summarize_coco(document)
    if {"shapes", "imagePath"} <= keys:
        shapes = Counter(str(shape.get("shape_type")) for shape in document["shapes"])
        sides = (document.get("imageWidth"), document.get("imageHeight"))
        facts = {"image": document["imagePath"], "size": " × ".join(map(str, sides)), **shapes}
        return "labelme", "a file of labelme", facts, []
    if keys and all(isinstance(value, dict) and "start" in value for value in document.values()):
        return "demo scores", "scores of igvg demo", {"splits": ", ".join(keys)}, []
    return None


def _describe_list(document: list[Any]) -> Found | None:
    if not document:
        return "empty list", "an empty list in JSON, such as results in COCO's format without a box", {}, []
    first = document[0] if document and isinstance(document[0], dict) else {}
    if "sentences" in first:
        return "annotations", "expressions in a published layout", summarize_refs(document), []
    if "image_id" in first and ("bbox" in first or "segmentation" in first):
        facts: dict[str, Cell] = {
            "entries": len(document),
            "images": len({entry.get("image_id") for entry in document if isinstance(entry, dict)}),
            "with boxes": sum("bbox" in entry for entry in document),
            "with segmentations": sum("segmentation" in entry for entry in document),
        }
        return "COCO results", "results in COCO's format, which igvg convert reads", facts, []
    if {"id", "file", "text", "crop"} <= first.keys():
        cutouts = sum(entry.get("file") is not None for entry in document)
        facts = {"expressions": len(document), "cut-outs": cutouts}
        return "index of cut-outs", "the index of cut-outs (igvg predict --save cutouts)", facts, []
    if {"id", "file", "text"} <= first.keys():
        return "index of PNG masks", "the index of PNG masks (igvg convert --to png)", {"masks": len(document)}, []
    return None


def _summarize_comparison(document: Mapping[str, Any]) -> tuple[dict[str, Cell], list[Table]]:
    facts: dict[str, Cell] = {
        "dataset": document.get("dataset"),
        "split": document.get("split"),
        "expressions": document.get("expressions"),
        "A": document["a"].get("predictions"),
        "B": document["b"].get("predictions"),
    }
    rows = tuple(
        (name, document["a"]["metrics"].get(name), document["b"]["metrics"].get(name), change)
        for name, change in document["differences"].items()
    )
    return facts, [Table(title="metrics", columns=("metric", "A", "B", "B − A"), rows=rows)]


def _summarize_coco(document: Mapping[str, Any]) -> tuple[str, dict[str, Cell], list[Table]]:
    images, annotations = document["images"], document["annotations"]
    of_expressions = bool(images) and "expression_id" in images[0]
    facts: dict[str, Cell] = {
        "images": len(images),
        "annotations": len(annotations),
        "crowds": sum(bool(annotation.get("iscrowd")) for annotation in annotations),
        "with segmentation": sum(bool(annotation.get("segmentation")) for annotation in annotations),
        "categories": len(document.get("categories") or ()),
    }
    what = "a COCO data set, every expression an image" if of_expressions else "a COCO data set"
    return what, facts, []


def summarize_refs(refs: list[Any]) -> dict[str, Cell]:
    """Counts of a list of REFER's refs."""
    splits = Counter(str(ref.get("split")) for ref in refs if isinstance(ref, dict))
    return {
        "refs": len(refs),
        "sentences": sum(len(ref.get("sentences") or ()) for ref in refs if isinstance(ref, dict)),
        "images": len({ref.get("image_id") for ref in refs if isinstance(ref, dict)}),
        **{f"refs of {split}": count for split, count in splits.items()},
    }


def describe_data_folder(folder: Path) -> Description | None:
    """A folder of annotations in a published layout, or of images; None: it is neither. No file is read."""
    names = sorted(child.name for child in folder.iterdir() if child.is_file())
    published = [name for name in names if _ANNOTATIONS.fullmatch(name)]
    images = sum(is_image_name(name) for name in names)
    if not published and not images:
        return None
    rows = tuple((name, (folder / name).stat().st_size) for name in published)
    return Description(
        path=str(folder),
        kind="annotations" if published else "images",
        what="annotations in a published layout, which igvg prepare takes" if published else "a folder of images",
        **measure_folder(folder),
        facts={"images": images} if images else {},
        tables=(Table(title="annotations", columns=("file", "bytes"), rows=rows),) if rows else (),
    )


def describe_pickle(file: Path) -> Description:
    """A pickle of refs; it is read as plain data.

    Raises:
        DataError: it holds something else, or asks for code to be run.
    """
    from shards.annotations.safe_pickle import load_pickle

    refs = load_pickle(file)
    if not isinstance(refs, list) or not refs or not isinstance(refs[0], dict) or "sentences" not in refs[0]:
        raise DataError("is a pickle, but not of refs", file=file, remedy="give a file or folder of igvg")
    what = "expressions in a published layout (a pickle of refs)"
    facts = summarize_refs(refs)
    return Description(path=str(file), kind="annotations", what=what, **measure_file(file), facts=facts)


def is_pairs(file: Path) -> bool:
    """Whether the first line is one of `igvg predict --pairs`: columns, or keys, image and text."""
    kind = file.suffix.lower()
    if kind not in (".csv", ".jsonl"):
        return False
    with file.open("rb") as stream:
        first = stream.readline(_LONGEST_LINE).decode("utf-8-sig", errors="replace")
    if kind == ".csv":
        return {"image", "text"} <= {name.strip() for name in first.split(",")}
    try:
        document = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and {"image", "text"} <= document.keys() and "id" not in document


def describe_pairs(file: Path) -> Description:
    """Images and what to look for in each.

    Raises:
        DataError: a line cannot be used.
    """
    pairs = read_pairs(file)
    facts: dict[str, Cell] = {
        "images": len(pairs.files), "pairs": len(pairs.pairs), "different texts": len(set(pairs.texts)),
    }  # fmt: skip
    what = "pairs of an image and a text, for igvg predict --pairs"
    return Description(path=str(file), kind="pairs", what=what, **measure_file(file), facts=facts)


def describe_toml(file: Path) -> Description:
    """Settings, or an experiment of igvg run.

    Raises:
        SettingsError: it is no TOML, or has keys of neither.
    """
    tables = read_toml(file)
    stages = [name for name in _STAGES if isinstance(tables.get(name), dict)]
    measured = measure_file(file)
    if stages:
        facts: dict[str, Cell] = {"stages": " → ".join(stages), "out": tables.get("out", f"runs/{file.stem}")}
        given = tuple(Setting(key=key, value=value, default=None, changed=True) for key, value in flatten(tables))
        return Description(
            path=str(file), kind="experiment", what="an experiment of igvg run", **measured, facts=facts,
            settings=tuple(setting for setting in given if setting.key != "out"),
        )  # fmt: skip
    if not tables.keys() & {*TrainSettings.__dataclass_fields__, *PredictSettings.__dataclass_fields__}:
        what = f"is TOML ({', '.join(list(tables)[:6])}), neither settings nor an experiment"
        raise DataError(what, file=file, remedy="give a file or folder of igvg")
    preset = tables.get("preset", "base")
    bases = {"train": train_preset(preset), "predict": PredictSettings(), "score": ScoreSettings(split="")}
    errors = []
    for stage, base in bases.items():
        try:
            settings = overlay_settings(base, tables, str(file))
        except SettingsError as error:
            errors.append(error)
            continue
        what = f"settings of igvg {stage}"
        changed = compare_settings(settings, base)
        return Description(path=str(file), kind="settings", what=what, **measured, settings=changed)
    raise errors[0]
