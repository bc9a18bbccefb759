"""The network's configuration as transformers keeps it: the same keys in the same config.json."""

from __future__ import annotations

import dataclasses
from typing import Any

from transformers.configuration_utils import PretrainedConfig

from pipelines.config.model import IGVGConfig
from pipelines.config.overrides import from_mapping
from pipelines.model.serialization import CONFIG_FILE, FORMER_KEYS, TRANSFORMERS_KEYS, refuse_missing_settings
from shards.errors import CheckpointError, SettingsError

_FIELDS = tuple(field.name for field in dataclasses.fields(IGVGConfig))
_ORIGIN = f"{CONFIG_FILE} of an igvg network"
# What transformers passes to a configuration besides the keys of the file.
_PASSED_KEYS = frozenset({"experts_implementation", "name_or_path", "num_labels", "_commit_hash"})


class IGVGPretrainedConfig(PretrainedConfig):  # type: ignore[misc]  # transformers has no types
    """`IGVGConfig` for transformers' Auto classes; keyword arguments are its fields and those of `PretrainedConfig`.

    Raises:
        CheckpointError: an unknown key (names the nearest), or an impossible value.
    """

    model_type = "igvg"

    def __init__(self, **values: Any) -> None:
        own = {name: values.pop(name) for name in list(values) if name not in TRANSFORMERS_KEYS | _PASSED_KEYS}
        config = _check({name: value for name, value in own.items() if name not in FORMER_KEYS})
        for name in _FIELDS:
            setattr(self, name, getattr(config, name))
        super().__init__(**values)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **options: Any) -> Any:
        """As in transformers, with one difference: the content of a config.json must have all settings.

        Raises:
            CheckpointError: settings are missing, unknown or impossible.
        """
        name = options.get("name_or_path") or config_dict.get("_name_or_path")
        own = {key: value for key, value in config_dict.items() if key not in _PASSED_KEYS}
        refuse_missing_settings(own, f"{CONFIG_FILE} of {name}" if name else _ORIGIN)
        return super().from_dict(config_dict, **options)

    @property
    def grid_size(self) -> int:
        """Rows and columns of the patch grid."""
        return int(self.image_size) // int(self.patch_size)

    def to_network(self) -> IGVGConfig:
        """The configuration of the plain network.

        Raises:
            CheckpointError: a value that was set later is impossible.
        """
        return _check({name: getattr(self, name) for name in _FIELDS})


def _check(values: dict[str, Any]) -> IGVGConfig:
    try:
        return from_mapping(IGVGConfig, values, _ORIGIN)
    except SettingsError as error:
        raise CheckpointError(str(error)) from error
