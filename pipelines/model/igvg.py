"""The whole network: an image and a text to boxes, masks and the existence of a target.

encoder → query generation → point-prior decoder → classes, boxes and instance masks; pixel decoder → global mask and
existence.

Letters: B batch, S image side in pixels, L text tokens, Q queries, C channels, H = W side of the masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipelines.config.model import IGVGConfig
from pipelines.model.attention import MLP
from pipelines.model.box_ops import decode_boxes
from pipelines.model.decoder import PointPriorDecoder
from pipelines.model.encoder import MultiwayEncoder
from pipelines.model.pixel_decoder import PixelDecoder, SimpleFeaturePyramid
from pipelines.model.query_generation import QueryGeneration
from pipelines.model.serialization import check_state_dict, read_checkpoint, write_checkpoint

# A fresh network predicts boxes of about an eighth of the image's sides: sigmoid(-2) = 0.12.
_SIZE_LOGIT = -2.0
_DRAWS = frozenset({"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_"})


@dataclass(frozen=True)
class IGVGOutput:
    """The network's output for a batch."""

    class_logits: Tensor
    """(B, Q, 2): target, no object."""
    boxes: Tensor
    """(B, Q, 4) cx, cy, w, h in [0, 1]."""
    points: Tensor
    """(B, Q, 2) the queries' points, x, y in [0, 1]."""
    instance_mask_logits: Tensor
    """(B, Q, H, W) at the pixel decoder's own resolution."""
    global_mask_logits: Tensor
    """(B, 1, H, W), likewise."""
    existence_logits: Tensor
    """(B, 2): a target exists, none does."""
    attention_map: Tensor
    """(B, h, w) for each patch the largest attention of a selected token, in [0, 1]."""
    aux_class_logits: list[Tensor]
    """Class logits after each earlier decoder layer."""
    aux_boxes: list[Tensor]
    """Boxes after each earlier decoder layer."""


class _SkipInitialization(TorchFunctionMode):
    """Leaves tensors on the meta device as they are: they hold no values, and drawing them takes most of the time."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Skip the functions that draw values."""
        named = kwargs or {}
        tensor = args[0] if args else named.get("tensor")
        if getattr(func, "__name__", "") in _DRAWS and isinstance(tensor, Tensor) and tensor.is_meta:
            return tensor
        return func(*args, **named)


class IGVGModel(nn.Module):
    """Instance-aware generalized visual grounding."""

    def __init__(self, config: IGVGConfig) -> None:
        super().__init__()
        self.config = config
        self._build_modules(config)

    def _build_modules(self, config: IGVGConfig) -> None:
        channels = config.hidden_dim
        self.encoder = MultiwayEncoder(config)
        self.image_projection = nn.Linear(config.encoder_dim, channels, bias=False)
        self.text_projection = nn.Linear(config.encoder_dim, channels, bias=False)
        self.query_generation = QueryGeneration(config)
        self.feature_pyramid = SimpleFeaturePyramid(channels)
        self.pixel_decoder = PixelDecoder(channels)
        self.decoder = PointPriorDecoder(config)
        self.class_head = nn.Linear(channels, 2)
        self.box_head = MLP(channels, channels, 4)
        self.global_mask_head = nn.Conv2d(channels, 1, 1)
        self.existence_head = MLP(channels, channels, 2)
        with torch.no_grad():
            self.box_head.fc3.bias[2:] = _SIZE_LOGIT

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> IGVGOutput:
        """Localize what a text refers to.

        Args:
            pixel_values: (B, 3, S, S) normalized image.
            input_ids: (B, L) token ids.
            attention_mask: (B, L), 1 = token, 0 = padding; at least one token each.

        Raises:
            ValueError: the image has another size than the network's, or the text more tokens than it has positions.
        """
        side, grid = self.config.image_size, self.config.grid_size
        if pixel_values.shape[1:] != (3, side, side):
            raise ValueError(f"expected pixel_values (B, 3, {side}, {side}), got {tuple(pixel_values.shape)}")
        patch_tokens, text_tokens = self.encoder(pixel_values, input_ids, attention_mask)
        patch_tokens, text_tokens = self.image_projection(patch_tokens), self.text_projection(text_tokens)
        queries = self.query_generation(text_tokens, attention_mask, patch_tokens)
        feature_maps = self.feature_pyramid(patch_tokens.transpose(1, 2).unflatten(-1, (grid, grid)))
        states, reference_points = self.decoder(queries.features, queries.points, feature_maps)
        class_logits = [self.class_head(state) for state in states]
        boxes = [decode_boxes(self.box_head(state), reference_points) for state in states]
        pixel_embeddings = self.pixel_decoder(feature_maps)
        return IGVGOutput(
            class_logits=class_logits[-1],
            boxes=boxes[-1],
            points=queries.points,
            instance_mask_logits=torch.einsum("bqc,bchw->bqhw", states[-1], pixel_embeddings),
            global_mask_logits=self.global_mask_head(pixel_embeddings),
            existence_logits=self.predict_existence(pixel_embeddings),
            attention_map=queries.attention_map,
            aux_class_logits=class_logits[:-1],
            aux_boxes=boxes[:-1],
        )

    def predict_existence(self, pixel_embeddings: Tensor) -> Tensor:
        """Pixel embeddings (B, C, H, W) to the mean over pixels of an MLP's logits (B, 2).

        The mean is taken before the last linear map, with which it commutes.
        """
        hidden = self.existence_head.forward_hidden(pixel_embeddings.flatten(2).transpose(1, 2))
        logits: Tensor = self.existence_head.fc3(hidden.mean(dim=1))
        return logits

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The model of a checkpoint folder, on the CPU, in evaluation mode.

        Raises:
            CheckpointError: the folder is no checkpoint, is damaged, or its tensors do not fit its configuration.
        """
        config, state = read_checkpoint(Path(folder))
        return cls.from_state_dict(config, state, str(folder))

    @classmethod
    def from_state_dict(cls, config: IGVGConfig, state: dict[str, Tensor], origin: str) -> Self:
        """A model in evaluation mode that takes tensors over without copying; `origin` names them in errors.

        Raises:
            CheckpointError: tensors are missing, unexpected or of the wrong shape.
        """
        with torch.device("meta"), _SkipInitialization():
            model = cls(config)
        check_state_dict(state, model.state_dict(), origin)
        # Checkpoints may hold float16; counters of batch norms stay integers.
        widened = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        model.load_state_dict(widened, assign=True)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors; older ones are replaced only by complete new ones."""
        write_checkpoint(Path(folder), self.config, self.state_dict())
