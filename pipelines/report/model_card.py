"""The model card of a checkpoint: what the hub shows about it, made from the records of its run and of its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.config.toml import format_toml
from pipelines.hub.library import load_library

PIPELINE_TAG = "zero-shot-object-detection"
LIBRARY = "igvg"
TAGS = ("visual-grounding", "referring-expression-comprehension", "referring-expression-segmentation", "transformers")
LICENSE_COMMENT = "# Fill in the license, e.g. license: apache-2.0 (igvg push --license does it).\n"
_DATASETS = {
    "grefcoco": "gRefCOCO",
    "ref-zom": "Ref-ZOM",
    "rrefcoco": "R-RefCOCO",
    "rrefcoco+": "R-RefCOCO+",
    "rrefcocog": "R-RefCOCOg",
    "refcoco": "RefCOCO",
    "refcoco+": "RefCOCO+",
    "refcocog": "RefCOCOg",
}


@dataclass(frozen=True, kw_only=True)
class Score:
    """The scores of one split, in percent."""

    dataset: str
    split: str
    metrics: Mapping[str, float | None]
    """None where there was nothing to measure."""
    intervals: Mapping[str, Sequence[float] | None] = field(default_factory=dict)
    """95 % intervals."""
    resolution: int = 0
    """Masks were scaled to so many pixels square; 0: scored at the size of their images."""


@dataclass(frozen=True, kw_only=True)
class CardContent:
    """What a card says."""

    repo: str
    """USER/REPO"""
    origin: str
    """The stage that made the checkpoint: train or import."""
    license: Mapping[str, str]
    """The keys of the card's metadata that say its license; empty leaves a line to fill in."""
    datasets: Sequence[str]
    """The data sets that it was trained on, as far as they are recorded."""
    settings: Mapping[str, Any]
    """The settings of its training; empty for imported checkpoints."""
    counts: Mapping[str, Any]
    versions: Mapping[str, str]
    scores: Sequence[Score]


def write_model_card(content: CardContent) -> str:
    """README.md of a repository of models on the hub: metadata in YAML with the scores as results, then the text."""
    sections = (
        _describe_use(content),
        _describe_origin(content),
        _describe_scores(content),
        _describe_versions(content),
    )
    return f"---\n{_write_metadata(content)}---\n\n" + "\n".join(section for section in sections if section)


def name_dataset(name: str) -> str:
    """The name of a data set as its authors write it."""
    return _DATASETS.get(name, name)


def _write_metadata(content: CardContent) -> str:
    library = load_library()
    results = [
        library.EvalResult(
            task_type=PIPELINE_TAG,
            dataset_type=score.dataset,
            dataset_name=name_dataset(score.dataset),
            dataset_split=score.split,
            dataset_args={"resolution": score.resolution} if score.resolution else None,
            metric_type=metric,
            metric_name=metric,
            metric_value=round(value, 2),
        )
        for score in content.scores
        for metric, value in score.metrics.items()
        if value is not None
    ]
    data = library.ModelCardData(
        license=content.license.get("license"),
        license_name=content.license.get("license_name"),
        license_link=content.license.get("license_link"),
        library_name=LIBRARY,
        pipeline_tag=PIPELINE_TAG,
        tags=[LIBRARY, *TAGS],
        model_name=content.repo.split("/")[-1],
        eval_results=results or None,
    )
    return ("" if content.license else LICENSE_COMMENT) + str(data.to_yaml()).rstrip("\n") + "\n"


def _describe_use(content: CardContent) -> str:
    return f"""# {content.repo.split("/")[-1]}

A network for generalized visual grounding: it finds every object of an image that an expression refers to, as a box and
a mask. An expression may refer to one object, to several, or to none.

## Use

```python
from pipelines import Grounder

grounder = Grounder.from_pretrained("{content.repo}")
results = grounder.predict("street.jpg", ["the two red cars", "a dog"])
```

On the command line, with igvg installed:

```
igvg predict --checkpoint {content.repo} --image street.jpg --text "the two red cars" --out found
```
"""


def _describe_origin(content: CardContent) -> str:
    rows = _format_table(("count", "value"), [(name, _show(value)) for name, value in content.counts.items()])
    if content.origin == "import":
        source = content.counts.get("hub")
        text = f"Converted by `igvg import` from a published checkpoint{f' of {source}' if source else ''}."
        return f"## Origin\n\n{text}\n\n{rows}"
    names = ", ".join(map(name_dataset, content.datasets)) or "not recorded"
    recipe = format_toml(content.settings).strip()
    return (
        f"## Training\n\nData sets: {names}. Trained by `igvg train`.\n\n{rows}\n"
        f"Settings, as `igvg train --config` takes them:\n\n```toml\n{recipe}\n```\n"
    )


def _describe_scores(content: CardContent) -> str:
    if not content.scores:
        return ""
    tables = []
    for score in content.scores:
        size = f"masks at {score.resolution} × {score.resolution} pixels" if score.resolution else "masks at full size"
        rows = [
            (metric, "–" if value is None else f"{value:.2f}", _show_interval(score.intervals.get(metric)))
            for metric, value in score.metrics.items()
        ]
        title = f"### {name_dataset(score.dataset)}, {score.split} ({size})"
        tables.append(f"{title}\n\n{_format_table(('metric', 'percent', '95 % interval'), rows)}")
    return "## Scores\n\nBy `igvg score`, with the benchmark's own metrics.\n\n" + "\n".join(tables)


def _describe_versions(content: CardContent) -> str:
    return "## Versions\n\n" + _format_table(("package", "version"), list(content.versions.items()))


def _format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_show(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_show, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _show_interval(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else ""
