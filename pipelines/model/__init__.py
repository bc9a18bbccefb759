"""The network: a leaf of the package that imports torch and its own modules only.

`pipelines.model.config` stays free of torch, so the names below are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.model.config import IGVGConfig, base_config, large_config, tiny_config
    from pipelines.model.network import IGVGModel, IGVGOutput
    from pipelines.model.published import convert_state, load_encoder, load_published
    from pipelines.model.storage import CheckpointError

__all__ = [
    "CheckpointError",
    "IGVGConfig",
    "IGVGModel",
    "IGVGOutput",
    "base_config",
    "convert_state",
    "large_config",
    "load_encoder",
    "load_published",
    "tiny_config",
]

_HOMES = {
    "CheckpointError": "storage",
    "IGVGConfig": "config",
    "IGVGModel": "network",
    "IGVGOutput": "network",
    "base_config": "config",
    "convert_state": "published",
    "large_config": "config",
    "load_encoder": "published",
    "load_published": "published",
    "tiny_config": "config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
