"""The documents of the API: what a request may set, and what an answer holds.

Letters: N instances; Q queries; H, W the size of the answer in pixels.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field

from pipelines.config.settings import PostprocessSettings
from shards.record import LONGEST_SIDE

MAX_TEXT_LENGTH = 1000
"""Characters of an expression at most."""
MAX_TEXTS = 1024
"""Expressions of one request at most, whatever the server's own limit is."""
MaskSource = Literal["merge", "instance", "global"]


def _setting(description: str, **limits: Any) -> Any:
    """A field that may be left out, and then is None; its default is not documented, as every server has its own."""
    return Field(None, description=description, json_schema_extra=_drop_default, **limits)


def _drop_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


class PostprocessFields(BaseModel):
    """From the network's raw outputs to the answer; what is left out has the default that `GET /health` says."""

    model_config = ConfigDict(extra="forbid")

    score_threshold: float = _setting("Queries with a score above this are selected.", ge=0, le=1)
    mask_threshold: float = _setting("A pixel belongs to a mask if its probability is at least this.", ge=0, le=1)
    mask_source: MaskSource = _setting(
        "The mask: the union of the instances' masks and the global mask, or only one of the two."
    )
    existence_weighting: bool = _setting("Multiply scores with the probability that a target exists.")
    nms: bool = _setting("Apply non-maximum suppression to the boxes.")
    nms_iou: float = _setting("IoU above which the box with the lower score is suppressed.", ge=0, le=1)
    max_side: int = Field(
        0,
        ge=0,
        le=LONGEST_SIDE,
        description="The longer side of the answer in pixels at most: coordinates and masks are those of the image "
        "scaled down to it. 0: the image's own size.",
    )


class PredictForm(PostprocessFields):
    """The form of `POST /predict`."""

    image: Annotated[
        UploadFile,
        Field(description="JPEG, PNG, WebP, GIF, BMP, TIFF, PNM or AVIF; the first frame, turned upright by its EXIF."),
    ]
    texts: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH)]],
        Field(min_length=1, max_length=MAX_TEXTS, description="The expressions: one field each."),
    ]


class Mask(BaseModel):
    """A mask as COCO's compressed run lengths."""

    size: tuple[int, int] = Field(description="H, W")
    counts: str


class Attention(BaseModel):
    """The attention of the query generation, coarser than the image, which it covers."""

    size: tuple[int, int] = Field(description="Height and width in cells.")
    values: str = Field(description="Base64 of one byte a cell, row by row, 255 for the map's highest value.")


class Settings(BaseModel):
    """The settings of post-processing that gave an answer."""

    score_threshold: float
    mask_threshold: float
    mask_source: MaskSource
    existence_weighting: bool
    nms: bool
    nms_iou: float


class ExpressionAnswer(BaseModel):
    """What an expression refers to; coordinates are in pixels of the answer's size."""

    text: str
    no_target: bool = Field(description="Whether no instance was found.")
    existence: float = Field(description="Probability that the expression refers to anything in the image.")
    boxes: list[tuple[float, float, float, float]] = Field(description="(N, 4) x0, y0, x1, y1.")
    scores: list[float] = Field(description="(N,) in [0, 1].")
    mask: Mask = Field(description="The answer as one mask.")
    instance_masks: list[Mask] = Field(description="(N,) a mask for each instance.")
    global_mask: Mask = Field(description="The network's global mask alone.")
    points: list[tuple[float, float]] = Field(description="(N, 2) reference points of the instances' queries.")
    all_points: list[tuple[float, float]] = Field(description="(Q, 2) reference points of all queries.")
    attention: Attention | None = Field(description="The attention of the query generation.")


class Answer(BaseModel):
    """The answer for an image and its expressions."""

    id: str = Field(description="Names the kept raw outputs in `/results/{id}`.")
    width: int = Field(description="W")
    height: int = Field(description="H")
    image_width: int = Field(description="Width of the upright image in pixels.")
    image_height: int = Field(description="Height of the upright image in pixels.")
    settings: Settings
    results: list[ExpressionAnswer] = Field(description="One for each expression, in order.")


class LimitsDocument(BaseModel):
    """What requests may hold."""

    upload_bytes: int
    image_pixels: int
    expressions: int
    expression_characters: int
    kept_seconds: float = Field(description="How long a result is kept after it was last used.")


class Health(BaseModel):
    """The state of the server."""

    status: Literal["ok"]
    version: str
    parameters: int = Field(description="Parameters of the network.")
    network_side: int = Field(description="Side in pixels of the square image that the network sees.")
    forward_passes: int = Field(description="Batches that went through the network so far.")
    expressions: int = Field(description="Expressions that went through the network so far.")
    waiting: int = Field(description="Requests that wait or are worked on.")
    results: int = Field(description="Results whose raw outputs are kept.")
    limits: LimitsDocument
    defaults: Settings


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="One line: what was expected, what was found.")


def describe_settings(settings: PostprocessSettings) -> Settings:
    """The settings as a document."""
    return Settings(**{name: getattr(settings, name) for name in Settings.model_fields})


def apply_fields(base: PostprocessSettings, fields: PostprocessFields) -> PostprocessSettings:
    """The settings of a request: `base` with what the request sets."""
    chosen = {name: value for name in Settings.model_fields if (value := getattr(fields, name)) is not None}
    values = {name: getattr(base, name) for name in Settings.model_fields}
    return PostprocessSettings(**(values | chosen))
