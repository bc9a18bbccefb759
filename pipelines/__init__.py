"""The stages of generalized visual grounding, from prepared shards to scores.

An example becomes a batch, a batch an output, an output a prediction, a prediction a score. The packages stand on each
other in this order, each only on those that come after it: experiments, stages, grounder, huggingface, grounding,
report, training, evaluation, prediction, pretrained, data and model (which do not know each other), runtime, networks,
config.

`Grounder` and `load_pretrained` are loaded when they are asked for: importing this package loads nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.huggingface.registration import register_with_transformers

if TYPE_CHECKING:
    from pipelines.grounder import Grounder, load_pretrained
    from pipelines.grounding import Grounding

_MODULES = {
    "Grounder": "pipelines.grounder", "Grounding": "pipelines.grounding", "load_pretrained": "pipelines.grounder",
}  # fmt: skip

__all__ = ["Grounder", "Grounding", "load_pretrained"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


register_with_transformers()
