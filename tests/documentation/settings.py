"""docs/settings.md: every setting with its values, default and meaning, read off the dataclasses."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from pipelines.config import settings as module
from pipelines.config.fingerprints import NOT_FINGERPRINTED
from pipelines.config.model import IGVGConfig
from pipelines.config.overrides import read_settings, to_mapping
from pipelines.config.presets import train_preset
from pipelines.config.recipes import RECIPES

NOTE = "<!-- Written by `python -m tests.documentation`: change pipelines/config, and run it again. -->"
INTRODUCTION = """
`--set KEY=VALUE` changes one setting, `--config FILE.toml` several: dots in a key are tables in the file. An unknown
key or a value out of range is an error that names the key. `igvg train --show-settings` prints what results, as TOML.

```
igvg train --shards shards/mine --out runs/mine --preset tiny --set optimizer.head_lr=1e-4 --set epochs=20
```

Changing a setting changes the fingerprint of the result, except for those marked with †, which change no byte of it.
"""
STAGES: dict[str, tuple[type, str]] = {
    "igvg train": (
        module.TrainSettings,
        "Defaults are those of the preset `base`. `igvg ablate` and `[train]` of `igvg run` take the same.",
    ),
    "igvg predict": (
        module.PredictSettings,
        "`postprocess` is that of the checkpoint. `igvg predict --from` and `igvg sweep` take `postprocess` alone.",
    ),
    "igvg predict, zero-shot models": (
        module.ZeroShotSettings,
        "Defaults of the thresholds depend on the [model's family](zero-shot.md).",
    ),
    "igvg prepare": (module.PrepareSettings, "Given as options, and as keys of `[prepare.NAME]` of `igvg run`."),
    "igvg prepare jsonl": (module.JsonLinesSettings, "Likewise."),
    "igvg prepare coco": (module.CocoSettings, "Likewise."),
    "igvg report": (module.ReportSettings, "Given as options."),
    "igvg serve": (module.ServeSettings, "`postprocess` is what answers have by default."),
    "igvg score": (module.ScoreSettings, "Given as options, and as keys of `[score]` of `igvg run`."),
}
GROUPS = {
    "model": "Network: model",
    "text": "Expressions: text",
    "matching": "Matching: matching",
    "loss": "Losses: loss",
    "optimizer": "Optimizer: optimizer",
    "postprocess": "Post-processing: postprocess",
}
BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
WORDS: dict[Any, str] = {int: "integer", float: "number", bool: "true, false", str: "text", type(None): "none"}


def format_settings() -> str:
    """The page."""
    lines = [NOTE, "", "# Settings", INTRODUCTION]
    described: set[type] = set()
    for title, (stage, note) in STAGES.items():
        lines += [f"## {title}", "", note, "", *format_table(stage, ""), ""]
        for field in dataclasses.fields(stage):
            group = find_group(stage, field.name)
            if group and group not in described:
                described.add(group)
                lines += [f"### {GROUPS[field.name]}", "", describe_class(group), ""]
                lines += [*format_table(group, f"{field.name}."), ""]
    return "\n".join([*lines, *format_presets()]) + "\n"


def find_group(stage: type, name: str) -> type | None:
    """The dataclass of a group of settings; None for a single setting."""
    kind = get_type_hints(stage)[name]
    return kind if dataclasses.is_dataclass(kind) and isinstance(kind, type) else None


def describe_class(group: type) -> str:
    """The first line of a class's docstring."""
    return (inspect.getdoc(group) or "").splitlines()[0]


def format_table(stage: type, prefix: str) -> list[str]:
    """A table of the single settings of a class."""
    meanings = read_meanings(stage)
    hints = get_type_hints(stage, include_extras=True)
    rows = ["| setting | default | values | meaning |", "| --- | --- | --- | --- |"]
    for field in dataclasses.fields(stage):
        if find_group(stage, field.name):
            continue
        mark = " †" if field.name in NOT_FINGERPRINTED else ""
        default = "" if field.default is dataclasses.MISSING else f"`{format_value(field.default)}`"
        meaning = re.sub(r"(</?s>)", r"`\1`", meanings[field.name].replace("|", "\\|"))
        values = describe_type(hints[field.name])
        rows.append(f"| `{prefix}{field.name}`{mark} | {default} | {values} | {meaning} |")
    return rows


def read_meanings(stage: type) -> dict[str, str]:
    """The docstring of every field; an empty one for a field without."""
    meanings = {field.name: "" for field in dataclasses.fields(stage)}
    for parent in stage.__bases__:
        meanings |= read_meanings(parent) if dataclasses.is_dataclass(parent) else {}
    (tree,) = ast.parse(inspect.getsource(stage)).body
    assert isinstance(tree, ast.ClassDef)
    for node, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(after, ast.Expr):
            meanings[node.target.id] = " ".join(str(ast.literal_eval(after.value)).split())
    return meanings


def describe_type(hint: Any) -> str:
    """The values of a type in words."""
    arguments = get_args(hint)
    if hasattr(hint, "__metadata__"):
        bounds = [
            f"{sign} {getattr(limit, name)}"
            for info in hint.__metadata__
            for limit in (info.metadata if isinstance(info, FieldInfo) else [info])
            for name, sign in BOUNDS.items()
            if hasattr(limit, name)
        ]
        word = describe_type(arguments[0])
        return f"{word} {', '.join(bounds)}" if bounds else word
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if get_origin(hint) is tuple:
        inner = describe_type(arguments[0])
        return f"list: {inner}" if Ellipsis in arguments else f"{len(arguments)} values: {inner}"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(describe_type, arguments))
    return WORDS[hint]


def format_value(value: Any) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(format_value, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return "(empty)" if value == "" else "none" if value is None else str(value)


def format_presets() -> list[str]:
    """What presets and recipes set, where it differs from the preset `base`."""
    base = flatten(to_mapping(train_preset("base")))
    columns = {f"`--preset {name}`": train_preset(name) for name in ("large", "tiny")}
    columns |= {
        f"`--recipe {name}`": read_settings(train_preset("base"), recipe=file) for name, file in RECIPES.items()
    }
    values = {name: flatten(to_mapping(settings)) for name, settings in columns.items()}
    equal = [name for name in columns if all(values[name][key] == base[key] for key in base)]
    values = {name: column for name, column in values.items() if name not in equal}
    differing = [key for key in base if key != "preset" and any(column[key] != base[key] for column in values.values())]
    note = f"""What they set, where it differs from `--preset base`. Recipes lie over a preset, here over `base`; the
same as `base` are {", ".join(equal)}."""
    rows = [
        "## Presets and recipes",
        "",
        note,
        "",
        f"| setting | `base` | {' | '.join(values)} |",
        f"| --- | --- |{' --- |' * len(values)}",
    ]
    for key in differing:
        cells = [f"`{format_value(column[key])}`" if column[key] != base[key] else "" for column in values.values()]
        rows.append(f"| `{key}` | `{format_value(base[key])}` | {' | '.join(cells)} |")
    return rows


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted keys, lists as tuples."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat


def list_classes() -> set[type]:
    """The classes of settings that the page describes."""
    classes = {stage for stage, _ in STAGES.values()}
    groups = {find_group(stage, field.name) for stage in classes for field in dataclasses.fields(stage)}
    return classes | {group for group in groups if group}


def list_all_classes() -> set[type]:
    """All classes of settings that there are."""
    found = {value for value in vars(module).values() if isinstance(value, type) and dataclasses.is_dataclass(value)}
    return found | {IGVGConfig}
