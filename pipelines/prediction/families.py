"""The zero-shot families of transformers: which checkpoints belong to one, how they take text and how they answer.

Each family's own processor prepares images and text, and its own post-processing gives boxes or instances. Nothing here
loads torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.config.overrides import from_mapping, to_mapping
from pipelines.config.settings import PredictSettings, ZeroShotSettings
from pipelines.networks import resolve_checkpoint
from shards.errors import CheckpointError, DataError, SettingsError
from shards.files import read_json

CONFIG_FILE = "config.json"
_IGVG = "igvg"
_THRESHOLDS = ("threshold", "text_threshold", "nms_threshold", "mask_threshold")

Size = tuple[int, int]
"""Height and width of an image in pixels."""
Answers = list[dict[str, Any]]
"""What post-processing gives for each expression: `scores`, `boxes` (xyxy, pixels), maybe `masks`, `text_labels`."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """How the models of one family are loaded and asked."""

    name: str
    """As its authors write it."""
    model_class: str
    """The class of transformers that loads the weights."""
    processor_class: str
    """The class of transformers that prepares images and text."""
    settings: ZeroShotSettings
    """Thresholds as transformers' post-processing has them by default."""
    read_max_tokens: Callable[[Any], int]
    """From the model's configuration: tokens of an expression at most, as its tokenizer counts them."""
    prepare: Callable[[Any, list[Any], list[str]], Any]
    """From the processor, images and expressions to the model's inputs."""
    postprocess: Callable[[Any, Any, Sequence[Size], ZeroShotSettings], Answers]
    """From the processor, the model's outputs, and the sizes of the images to answers."""
    has_masks: bool = False
    """Whether the model gives masks."""
    forget: Callable[[Any], None] | None = None
    """Empties what the model remembers of earlier expressions, on which its rounding may depend."""


def find_family(checkpoint: Path) -> Family | None:
    """The family of a checkpoint by the `model_type` of its config.json; None: igvg's own, which reads it itself.

    Raises:
        CheckpointError: the checkpoint is a model of transformers that is not supported.
    """
    model_type = _read_model_type(checkpoint)
    if model_type in (None, _IGVG):
        return None
    if model_type not in FAMILIES:
        raise _explain_type(checkpoint, model_type, "predict with", (_IGVG, *FAMILIES))
    return FAMILIES[model_type]


def find_mask_classes(checkpoint: Path) -> tuple[str, str]:
    """The classes of transformers that load a checkpoint which gives masks for boxes: the model's and the processor's.

    Raises:
        CheckpointError: the checkpoint is none.
    """
    model_type = _read_model_type(checkpoint)
    if model_type not in MASK_CLASSES:
        raise _explain_type(checkpoint, model_type, "take --masks from", tuple(MASK_CLASSES))
    return MASK_CLASSES[model_type]


def model_folder(checkpoint: Path) -> Path:
    """The folder of a checkpoint that is given as a folder or as its weights."""
    path = resolve_checkpoint(checkpoint)
    return path.parent if path.suffix == ".safetensors" and path.is_file() else path


def default_settings(checkpoint: Path | None) -> PredictSettings | ZeroShotSettings:
    """The settings that a prediction with a checkpoint starts from: those of its family, or igvg's.

    Raises:
        CheckpointError: as `find_family`.
    """
    family = None if checkpoint is None else find_family(checkpoint)
    return PredictSettings() if family is None else family.settings


def _read_model_type(checkpoint: Path) -> str | None:
    file = model_folder(checkpoint) / CONFIG_FILE
    try:
        config = read_json(file, "a model's configuration in JSON", "copy it again") if file.is_file() else {}
    except DataError:
        return None
    model_type = config.get("model_type") if isinstance(config, dict) else None
    return model_type if isinstance(model_type, str) else None


def _explain_type(checkpoint: Path, model_type: str | None, purpose: str, supported: Sequence[str]) -> CheckpointError:
    file = model_folder(checkpoint) / CONFIG_FILE
    found = (
        f"model_type is {model_type!r}, which igvg cannot {purpose}" if model_type else "no such file, or no model_type"
    )
    return CheckpointError(f"{file}: {found}; give a folder of one of {', '.join(supported)}")


def check_thresholds(settings: ZeroShotSettings, family: Family) -> None:
    """Refuse a threshold that a family does not have.

    Raises:
        SettingsError: names the threshold and those of the family.
    """
    known = [name for name in _THRESHOLDS if getattr(family.settings, name) is not None]
    for name in _THRESHOLDS:
        if (getattr(settings, name) is None) == (name in known):
            what = f"has no {name}" if name not in known else f"needs {name}"
            raise SettingsError(f"{family.name} {what}; its thresholds are {_list_thresholds(family)}")


def _list_thresholds(family: Family) -> str:
    return ", ".join(name for name in _THRESHOLDS if getattr(family.settings, name) is not None)


def change_settings(family: Family, changes: Mapping[str, Any]) -> ZeroShotSettings:
    """A family's settings with other thresholds or another `batch_size`.

    Raises:
        SettingsError: the family has no such setting, or a value is invalid.
    """
    for name in changes:
        if name not in (*_THRESHOLDS, "batch_size"):
            raise SettingsError(f"{family.name} has no {name}; its thresholds are {_list_thresholds(family)}")
    settings = from_mapping(ZeroShotSettings, {**to_mapping(family.settings), **changes}, "post-processing")
    check_thresholds(settings, family)
    return settings


def check_masks(family: Family | None, masks: Path | None) -> None:
    """Refuse a checkpoint for masks that does not fit the model; `family` is None for igvg's own network.

    Raises:
        CheckpointError: it gives no masks for boxes.
        SettingsError: the model gives masks itself.
    """
    if masks is None:
        return
    if family is None:
        raise SettingsError(
            "masks of SAM are for zero-shot models that give boxes alone; igvg's own network gives masks"
        )
    if family.has_masks:
        raise SettingsError(f"{family.name} gives masks itself; leave out the checkpoint for masks")
    find_mask_classes(masks)


def _prepare_phrases(processor: Any, images: list[Any], texts: list[str]) -> Any:
    # The family takes a full stop for the end of a phrase, and the processor merges and ends phrases itself.
    phrases = [[" ".join(text.replace(".", " ").split())] for text in texts]
    return processor(images=images, text=phrases, return_tensors="pt", padding=True)


def _prepare_queries(processor: Any, images: list[Any], texts: list[str]) -> Any:
    return processor(images=images, text=[[text] for text in texts], return_tensors="pt")


def _prepare_prompts(processor: Any, images: list[Any], texts: list[str]) -> Any:
    return processor(images=images, text=texts, return_tensors="pt")


def _postprocess_boxes(processor: Any, outputs: Any, sizes: Sequence[Size], settings: ZeroShotSettings) -> Answers:
    return _answer(processor.post_process_grounded_object_detection, outputs, sizes, settings)


def _postprocess_instances(processor: Any, outputs: Any, sizes: Sequence[Size], settings: ZeroShotSettings) -> Answers:
    # The presence score is a factor of every instance's score.
    return _answer(processor.post_process_instance_segmentation, outputs, sizes, settings)


def _answer(
    postprocess: Callable[..., Answers], outputs: Any, sizes: Sequence[Size], settings: ZeroShotSettings
) -> Answers:
    """Call a family's post-processing with the thresholds that it has."""
    thresholds = {name: value for name in _THRESHOLDS if (value := getattr(settings, name)) is not None}
    return postprocess(outputs, target_sizes=list(sizes), **thresholds)


def _forget_texts(model: Any) -> None:
    for name in ("language_cache_class", "language_cache_prompt"):
        cache = getattr(model, name)
        setattr(model, name, type(cache)(cache.capacity))


_GROUNDING_DINO = Family(
    name="Grounding DINO",
    model_class="GroundingDinoForObjectDetection",
    processor_class="GroundingDinoProcessor",
    settings=ZeroShotSettings(threshold=0.25, text_threshold=0.25),
    # One less for the full stop that ends the phrase.
    read_max_tokens=lambda config: int(config.max_text_len) - 1,
    prepare=_prepare_phrases,
    postprocess=_postprocess_boxes,
)
_OWL_VIT = Family(
    name="OWL-ViT",
    model_class="OwlViTForObjectDetection",
    processor_class="OwlViTProcessor",
    settings=ZeroShotSettings(threshold=0.1),
    read_max_tokens=lambda config: int(config.text_config.max_position_embeddings),
    prepare=_prepare_queries,
    postprocess=_postprocess_boxes,
)
_OMDET_TURBO = Family(
    name="OmDet-Turbo",
    model_class="OmDetTurboForObjectDetection",
    processor_class="OmDetTurboProcessor",
    settings=ZeroShotSettings(threshold=0.3, nms_threshold=0.5),
    read_max_tokens=lambda config: int(config.text_config.max_position_embeddings),
    prepare=_prepare_queries,
    postprocess=_postprocess_boxes,
    forget=_forget_texts,
)
_SAM3 = Family(
    name="SAM 3",
    model_class="Sam3Model",
    processor_class="Sam3Processor",
    settings=ZeroShotSettings(threshold=0.3, mask_threshold=0.5),
    read_max_tokens=lambda config: int(config.text_config.max_position_embeddings),
    prepare=_prepare_prompts,
    postprocess=_postprocess_instances,
    has_masks=True,
)
FAMILIES = {
    "grounding-dino": _GROUNDING_DINO,
    "mm-grounding-dino": replace(
        _GROUNDING_DINO, name="MM Grounding DINO", model_class="MMGroundingDinoForObjectDetection"
    ),
    "owlvit": _OWL_VIT,
    "owlv2": replace(_OWL_VIT, name="OWLv2", model_class="Owlv2ForObjectDetection", processor_class="Owlv2Processor"),
    "omdet-turbo": _OMDET_TURBO,
    "sam3": _SAM3,
    # As facebook/sam3 is published: the image model together with the tracker, which is not loaded.
    "sam3_video": _SAM3,
}
"""The families by the `model_type` of their configurations."""
MASK_CLASSES = {
    "sam": ("SamModel", "SamProcessor"),
    "sam2": ("Sam2Model", "Sam2Processor"),
    # As facebook/sam2.1-hiera-* are published.
    "sam2_video": ("Sam2Model", "Sam2Processor"),
}
"""Model and processor that give masks for boxes, by the `model_type` of their configurations."""
