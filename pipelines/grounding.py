"""The result of one expression in Python: instances with boxes, scores and masks, which a notebook shows.

Letters: N instances; H, W the size of the image in pixels.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.config.overrides import from_mapping
from pipelines.config.settings import PostprocessSettings
from pipelines.prediction.detections import Detections
from pipelines.prediction.postprocess import existence_probability, postprocess, postprocess_instance_masks
from pipelines.prediction.raw_output import RawOutput
from pipelines.report.overlay import OverlayContent, draw_overlay

_KEYS = ("scores", "labels", "boxes", "masks", "text_labels")
_GRAY = 96


@dataclass(frozen=True, kw_only=True, eq=False)
class Grounding(Mapping[str, Any]):
    """What an expression refers to in an image.

    As a mapping it has the keys of the dictionaries that transformers' models return: `scores`, `labels`, `boxes`,
    `masks` (where there are any) and `text_labels`. `grounding["masks"]` is (N, 1, H, W), DETR's layout, which
    supervision expects. What a zero-shot model does not give is None: it has no points, `existence` only if it has a
    presence score, and masks only if it gives them or a SAM checkpoint does.
    """

    boxes: Tensor
    """(N, 4) float64 x0, y0, x1, y1 in pixels of the image."""
    scores: Tensor
    """(N,) float64 in [0, 1]."""
    masks: Tensor | None
    """(N, H, W) bool, one for each instance."""
    mask: Tensor | None
    """(H, W) bool, the answer as one mask: by default the union of the instances' masks and the global mask."""
    points: Tensor | None
    """(N, 2) float64 x, y of the queries' reference points in pixels."""
    existence: float | None
    """Probability that the expression refers to anything in the image."""
    size: tuple[int, int]
    """Height and width of the image in pixels."""
    text: str | None
    """The expression, if it was given."""
    image: NDArray[np.uint8] | None = None
    """(H, W, 3) RGB, on which notebooks draw the result; None: on gray."""

    @property
    def no_target(self) -> bool:
        """Whether the expression refers to nothing in the image: no instance was found."""
        return len(self.boxes) == 0

    @property
    def labels(self) -> Tensor:
        """(N,) int64 zeros: indices into the expressions of this result, of which there is one."""
        return torch.zeros(len(self.boxes), dtype=torch.int64)

    @property
    def text_labels(self) -> list[str] | None:
        """The expression of each instance, (N,)."""
        return None if self.text is None else [self.text] * len(self.boxes)

    # A mapping compares its values, and tensors have no single truth value: results are compared by identity.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __len__(self) -> int:
        """Number of keys, as of every mapping; the number of instances is `len(grounding.boxes)`."""
        return len(list(iter(self)))

    def __iter__(self) -> Iterator[str]:
        return (key for key in _KEYS if key != "masks" or self.masks is not None)

    def __getitem__(self, key: str) -> Any:
        if key not in tuple(self):
            raise KeyError(key)
        return self.masks[:, None] if key == "masks" and self.masks is not None else getattr(self, key)

    def __repr__(self) -> str:
        height, width = self.size
        found = "no target" if self.no_target else f"{len(self.boxes)} instances"
        existence = "" if self.existence is None else f"existence {self.existence:.2f}, "
        return f"Grounding({self.text!r}, {found}, {existence}{width} × {height} pixels)"

    def _repr_png_(self) -> bytes:
        image = self.image if self.image is not None else np.full((*self.size, 3), _GRAY, dtype=np.uint8)
        nothing = np.zeros((len(self.boxes), *self.size), dtype=bool)
        content = OverlayContent(
            boxes=self.boxes.numpy(),
            scores=self.scores.numpy(),
            mask=np.zeros(self.size, dtype=bool) if self.mask is None else self.mask.numpy(),
            instance_masks=nothing if self.masks is None else self.masks.numpy(),
            points=None if self.points is None else self.points.numpy(),
        )
        overlay = draw_overlay(image, self.text or "", content)
        stream = io.BytesIO()
        overlay.save(stream, format="png")
        return stream.getvalue()

    def _repr_html_(self) -> str:
        encoded = base64.b64encode(self._repr_png_()).decode("ascii")
        overlay = f'<img src="data:image/png;base64,{encoded}" alt="{html.escape(self.text or "", quote=True)}">'
        return f"<figure>{overlay}<figcaption>{html.escape(repr(self))}</figcaption></figure>"


def postprocess_settings(threshold: float, changes: Mapping[str, Any]) -> PostprocessSettings:
    """The settings of post-processing with a score threshold and other changes.

    Raises:
        SettingsError: an unknown setting (names the nearest), or an invalid value.
    """
    return from_mapping(PostprocessSettings, {"score_threshold": threshold, **changes}, "post-processing")


def build_grounding(
    raw: RawOutput, settings: PostprocessSettings, text: str | None, image: NDArray[np.uint8] | None = None
) -> Grounding:
    """The result of a raw output: what `igvg predict` writes, and a mask for each instance."""
    result = postprocess(raw, settings)
    return Grounding(
        boxes=torch.from_numpy(result.boxes),
        scores=torch.from_numpy(result.scores),
        masks=torch.from_numpy(postprocess_instance_masks(raw, result.queries, settings)),
        mask=torch.from_numpy(np.ascontiguousarray(result.mask)),
        points=torch.from_numpy(result.points),
        existence=existence_probability(raw),
        size=raw.original_size,
        text=text,
        image=image,
    )


def build_zero_shot_grounding(found: Detections, text: str | None, image: NDArray[np.uint8] | None = None) -> Grounding:
    """The result of a zero-shot model: what `igvg predict` writes, and a mask for each instance if there are masks."""
    return Grounding(
        boxes=torch.from_numpy(found.boxes),
        scores=torch.from_numpy(found.scores),
        masks=None if found.masks is None else torch.from_numpy(found.masks),
        mask=None if (mask := found.mask) is None else torch.from_numpy(mask),
        points=None,
        existence=found.existence,
        size=found.size,
        text=text,
        image=image,
    )
