"""The settings that an artifact was made with, those that differ from the defaults first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.config.fingerprints import NOT_FINGERPRINTED
from pipelines.config.overrides import overlay_settings, to_mapping
from pipelines.config.presets import train_preset
from pipelines.config.settings import (
    CocoSettings,
    JsonLinesSettings,
    PredictSettings,
    PrepareSettings,
    ReportSettings,
    ScoreSettings,
    ZeroShotSettings,
)
from pipelines.inspection.description import Setting
from shards.errors import SettingsError

# Versions of what is written, which no user sets.
_INTERNAL = frozenset({"records"})


def list_settings(stage: str, options: Mapping[str, Any]) -> tuple[Setting, ...]:
    """The settings of a stage's options under their present names; those of unknown stages have no defaults."""
    try:
        base = _find_defaults(stage, options)
        if base is None:
            return tuple(sort_settings(_given(options)))
        defaults = to_mapping(base)
        known = {key: value for key, value in options.items() if key in defaults}
        present = to_mapping(overlay_settings(base, known, "options"))
    except SettingsError:
        return tuple(sort_settings(_given(options)))
    settings = [
        Setting(key=key, value=value, default=default, changed=value != default)
        for key, value, default in _pair(present, defaults)
        if key.split(".")[0] in options and key not in NOT_FINGERPRINTED
    ]
    settings += _given({key: value for key, value in options.items() if key not in defaults})
    return tuple(sort_settings(settings))


def compare_settings(settings: Any, defaults: Any) -> tuple[Setting, ...]:
    """The settings of a dataclass and their defaults, those that differ first."""
    return tuple(
        sort_settings(
            Setting(key=key, value=value, default=default, changed=value != default)
            for key, value, default in _pair(to_mapping(settings), to_mapping(defaults))
        )
    )


def sort_settings(settings: Any) -> list[Setting]:
    """Those that differ from their defaults first, otherwise in the same order."""
    return sorted(settings, key=lambda setting: not setting.changed)


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and the values of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _find_defaults(stage: str, options: Mapping[str, Any]) -> Any | None:
    if stage in ("train", "untrained"):
        return train_preset(options.get("preset", "base"))
    if stage == "predict":
        return ZeroShotSettings() if "threshold" in options else PredictSettings()
    if stage == "prepare":
        kinds = {"jsonl": JsonLinesSettings, "coco": CocoSettings}
        return kinds.get(str(options.get("dataset")), PrepareSettings)(dataset="")
    return {"score": ScoreSettings(split=""), "report": ReportSettings(split="")}.get(stage)


def _given(options: Mapping[str, Any]) -> list[Setting]:
    return [
        Setting(key=key, value=value, default=None, changed=key not in _INTERNAL) for key, value in flatten(options)
    ]


def _pair(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    of_key = dict(flatten(defaults))
    for key, value in flatten(values):
        yield key, value, of_key.get(key)
