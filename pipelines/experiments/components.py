"""The ideas of the paper that `igvg ablate components` takes out of a network, one at a time, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pipelines.config.overrides import overlay_settings
from pipelines.config.presets import train_preset
from pipelines.config.settings import TrainSettings

FULL = "full"


@dataclass(frozen=True, kw_only=True)
class Component:
    """An idea of the paper, and the settings of a network without it."""

    key: str
    """Of folders and of the report."""
    title: str
    instead: str = ""
    """What the network without it does."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Nested settings of the training; nothing: the full network's outputs are post-processed again."""
    postprocess: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        """Whether the network without it has a training of its own."""
        return bool(self.changes) or self.key == FULL

    def resolve(self, settings: TrainSettings) -> TrainSettings:
        """The settings without this component.

        Raises:
            SettingsError: they are not possible.
        """
        changes = {**self.changes, **({"postprocess": self.postprocess} if self.postprocess else {})}
        return overlay_settings(settings, changes, f"without {self.title}") if changes else settings


COMPONENTS = (
    Component(
        key="point-cost", title="point cost", instead="matched by class and box alone",
        changes={"matching": {"point_cost": 0.0}},
    ),
    Component(
        key="point-selector", title="point selector", instead="the same grid of points for every image",
        changes={"model": {"point_selector": "grid"}},
    ),
    Component(
        key="text-selector", title="text selector", instead="every query takes the mean of the text tokens",
        changes={"model": {"text_score": "none"}},
    ),
    Component(
        key="l2-score", title="L2 text score", instead="mean text score", changes={"model": {"text_score": "mean"}}
    ),
    Component(
        key="instance-masks", title="instance masks", instead="no instance masks in loss and prediction",
        changes={"loss": {"instance": 0.0, "negative": 0.0}}, postprocess={"mask_source": "global"},
    ),
    Component(
        key="instance-only", title="merge of masks", instead="instance masks alone",
        postprocess={"mask_source": "instance"},
    ),
    Component(
        key="global-only", title="merge of masks", instead="the global mask alone",
        postprocess={"mask_source": "global"},
    ),
    Component(
        key="existence-weighting", title="existence weighting", instead="query scores are not weighted",
        postprocess={"existence_weighting": False},
    ),
)  # fmt: skip
"""But the reference points, of which presets take either kind."""
STUDY: Mapping[str, Any] = MappingProxyType({
    "epochs": 3, "batch_size": 16, "precision": "fp32", "init": "shapes", "init_part": "encoder",
    "optimizer": {"encoder_lr": 4e-4, "head_lr": 2e-3},
})  # fmt: skip
"""Changes to the preset `tiny` for the drawn set: an encoder that knows single shapes, as the paper's knows images."""


def study_settings() -> TrainSettings:
    """The settings of the study on the drawn set: those of the preset `tiny`, changed by `STUDY`."""
    return overlay_settings(train_preset("tiny"), STUDY, "study")


def list_components(settings: TrainSettings) -> tuple[Component, ...]:
    """The full network, then all components; the reference points that the settings do not take are a variant."""
    other = {"point": "shifted", "shifted": "point"}[settings.model.reference]
    words = {"point": "plain reference points", "shifted": "shifted reference points"}
    reference = Component(
        key="reference", title=words[settings.model.reference], instead=words[other],
        changes={"model": {"reference": other}},
    )  # fmt: skip
    return (Component(key=FULL, title="full network"), *COMPONENTS[:4], reference, *COMPONENTS[4:])
