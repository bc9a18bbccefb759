"""Which files `igvg predict` writes for the user's own images, besides predictions.jsonl and the raw outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from pipelines.report.overlay import DEFAULT_LAYERS, Layer
from shards.errors import SettingsError, near_match_hint

FileKind = Literal["overlays", "masks", "cutouts", "json", "coco"]
DEFAULT_FILES: tuple[FileKind, ...] = ("overlays",)


@dataclass(frozen=True, kw_only=True)
class ImageOutputs:
    """The files, and what overlays show."""

    save: tuple[FileKind, ...] = DEFAULT_FILES
    show: tuple[Layer, ...] = DEFAULT_LAYERS

    @property
    def need_masks(self) -> bool:
        """Whether a model without masks cannot give them."""
        return "masks" in self.save or "cutouts" in self.save

    def fingerprint_options(self) -> dict[str, Any]:
        """What changes files, if it is not the default."""
        options: dict[str, Any] = {}
        if set(self.save) != set(DEFAULT_FILES):
            options["save"] = sorted(self.save)
        if "overlays" in self.save and set(self.show) != set(DEFAULT_LAYERS):
            options["show"] = sorted(self.show)
        return options


def parse_outputs(save: str | None, show: str | None) -> ImageOutputs:
    """The outputs that two comma-separated lists name; None: the default.

    Raises:
        SettingsError: one of them is unknown.
    """
    return ImageOutputs(
        save=DEFAULT_FILES if save is None else _parse_names("--save", save, get_args(FileKind)),
        show=DEFAULT_LAYERS if show is None else _parse_names("--show", show, get_args(Layer)),
    )


def _parse_names(option: str, words: str, known: tuple[Any, ...]) -> tuple[Any, ...]:
    names = [word.strip() for word in words.split(",") if word.strip()]
    for name in names:
        if name not in known:
            raise SettingsError(f"{option} has no {name}; {near_match_hint(name, known)}")
    return tuple(dict.fromkeys(names))
