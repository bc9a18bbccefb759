"""Makes transformers' Auto classes know igvg, without loading transformers.

Each Auto class is told as soon as its module of transformers is loaded: at once, or by a finder of modules that adds
this step to the end of the module's import. So importing igvg stays light, and a program that imports a part of
transformers loads no other part.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any


def register_with_transformers() -> None:
    """Tell the Auto classes whose modules are loaded, and the others when they are; a second call changes nothing."""
    for name, register in _STEPS.items():
        if module := sys.modules.get(name):
            register(module)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the modules of the Auto classes where Python does, and has them loaded with one more step."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _STEPS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _STEPS[module.__name__](module)


def _register_configuration(module: Any) -> None:
    from pipelines.huggingface.configuration import IGVGPretrainedConfig

    module.AutoConfig.register("igvg", IGVGPretrainedConfig, exist_ok=True)


def _register_model(module: Any) -> None:
    from pipelines.huggingface.configuration import IGVGPretrainedConfig
    from pipelines.huggingface.modeling import IGVGForZeroShotObjectDetection

    for auto in (module.AutoModel, module.AutoModelForZeroShotObjectDetection):
        auto.register(IGVGPretrainedConfig, IGVGForZeroShotObjectDetection, exist_ok=True)


def _register_image_processor(module: Any) -> None:
    from pipelines.huggingface.configuration import IGVGPretrainedConfig
    from pipelines.huggingface.image_processing import IGVGImageProcessor

    module.AutoImageProcessor.register(
        IGVGPretrainedConfig, slow_image_processor_class=IGVGImageProcessor, exist_ok=True
    )


def _register_tokenizer(module: Any) -> None:
    from pipelines.huggingface.configuration import IGVGPretrainedConfig
    from pipelines.huggingface.tokenization import IGVGTokenizer

    module.AutoTokenizer.register(IGVGPretrainedConfig, fast_tokenizer_class=IGVGTokenizer, exist_ok=True)


def _register_processor(module: Any) -> None:
    from pipelines.huggingface.configuration import IGVGPretrainedConfig
    from pipelines.huggingface.processing import IGVGProcessor

    module.AutoProcessor.register(IGVGPretrainedConfig, IGVGProcessor, exist_ok=True)


_AUTO = "transformers.models.auto"
_STEPS: dict[str, Callable[[Any], None]] = {
    f"{_AUTO}.configuration_auto": _register_configuration,
    f"{_AUTO}.modeling_auto": _register_model,
    f"{_AUTO}.image_processing_auto": _register_image_processor,
    f"{_AUTO}.tokenization_auto": _register_tokenizer,
    f"{_AUTO}.processing_auto": _register_processor,
}
