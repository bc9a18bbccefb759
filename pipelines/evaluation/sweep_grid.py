"""The post-processing settings of a sweep: all combinations of some values, or the rows of a table of the paper."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config.overrides import overlay_settings, parse_value, read_toml
from pipelines.config.settings import PostprocessSettings
from shards.errors import SettingsError, near_match_hint

AXES = tuple(field.name for field in dataclasses.fields(PostprocessSettings))
"""The settings that can be varied."""
MAX_SETTINGS = 10_000


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The settings of a sweep."""

    varied: tuple[str, ...]
    """The keys that have several values."""
    settings: tuple[PostprocessSettings, ...]
    metrics: tuple[str, ...] = ()
    """The metrics of the paper's table, in its order; empty: all."""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of the paper: the settings that its rows change, and the metrics of its columns."""

    rows: tuple[Mapping[str, Any], ...]
    metrics: tuple[str, ...]


PAPER_TABLES = {
    "table-11": PaperTable(
        rows=tuple({"mask_source": source} for source in ("global", "instance", "merge")), metrics=("gIoU", "cIoU")
    ),
    "table-12": PaperTable(
        rows=(
            {"existence_weighting": False, "nms": False},
            {"existence_weighting": True, "nms": False},
            {"existence_weighting": True, "nms": True},
        ),
        metrics=("F1score", "gIoU", "cIoU"),
    ),
}


def build_grid(base: PostprocessSettings, name: str, axes: Sequence[str]) -> Grid:
    """The grid that a command line describes.

    Args:
        base: the settings that are not varied.
        name: a key of `PAPER_TABLES`, a TOML file whose keys hold lists of values, or empty.
        axes: texts KEY=VALUE,VALUE,…, combined with each other and with the TOML file.

    Raises:
        SettingsError: nothing is varied, a key is unknown, a value is invalid, or there are too many combinations.
    """
    if name in PAPER_TABLES and not axes:
        table = PAPER_TABLES[name]
        settings = tuple(overlay_settings(base, row, name) for row in table.rows)
        return Grid(varied=tuple(table.rows[0]), settings=settings, metrics=table.metrics)
    if name in PAPER_TABLES:
        raise SettingsError(f"{name} is a whole grid; leave --vary out, or give a TOML file instead")
    if name and not name.endswith(".toml"):
        raise SettingsError(f"no grid {name!r}; there are {', '.join(PAPER_TABLES)}, or give a TOML file")
    values = {} if not name else {key: _list_values(value) for key, value in read_toml(Path(name)).items()}
    for text in axes:
        key, equals, listed = text.partition("=")
        if not equals or not listed.strip():
            raise SettingsError(f"--vary {text}: write it as KEY=VALUE,VALUE, e.g. --vary score_threshold=0.5,0.7")
        if key.strip() in values:
            raise SettingsError(f"--vary {text}: {key.strip()} is varied twice; list all its values in one place")
        values[key.strip()] = [parse_value(value.strip()) for value in listed.split(",")]
    return product_grid(base, values, name or "--vary")


def product_grid(base: PostprocessSettings, axes: Mapping[str, Sequence[Any]], source: str = "axes") -> Grid:
    """The Cartesian product of the axes' values, the last axis changing fastest.

    Raises:
        SettingsError: as `build_grid`; `source` says where the axes are from.
    """
    for key in axes:
        if key not in AXES:
            raise SettingsError(f"{source}: no setting {key} of post-processing; {near_match_hint(key, AXES)}")
    if not axes or not all(axes.values()):
        raise SettingsError(f"nothing to sweep; --vary one of {', '.join(AXES)}, or --grid {' or '.join(PAPER_TABLES)}")
    count = math.prod(map(len, axes.values()))
    if count > MAX_SETTINGS:
        raise SettingsError(f"{source}: {count:,} settings; a sweep takes {MAX_SETTINGS:,} at most")
    rows = (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
    settings = dict.fromkeys(overlay_settings(base, row, source) for row in rows)
    return Grid(varied=tuple(axes), settings=tuple(settings))


def _list_values(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
