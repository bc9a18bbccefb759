"""The whole network: a picture and a text in, boxes, masks and the existence of a target out.

encoder → query generation → point-prior decoder → classes, boxes and instance masks; pixel decoder → global mask and
existence.

Letters: B batch, S picture side in pixels, L text tokens, Q queries, C channels, H = W side of the masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from pipelines.config.model import IGVGConfig
from pipelines.model.attention import MLP
from pipelines.model.box_ops import decode_boxes
from pipelines.model.decoder import PointDecoder
from pipelines.model.encoder import MultiwayEncoder
from pipelines.model.pixel_decoder import FeaturePyramid, PixelDecoder
from pipelines.model.query_generation import QueryGeneration
from pipelines.model.serialization import check_state_dict, read_checkpoint, write_checkpoint

# A fresh network expects objects of about an eighth of the picture: sigmoid(-2) = 0.12.
_SIZE_LOGIT = -2.0


@dataclass(frozen=True)
class IGVGOutput:
    """What the network says about a batch."""

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
    """(B, h, w) for each cell of the encoder the largest attention of a selected token, in [0, 1]."""
    aux_class_logits: list[Tensor]
    """Class logits after each earlier decoder layer."""
    aux_boxes: list[Tensor]
    """Boxes after each earlier decoder layer."""


class IGVGModel(nn.Module):
    """Instance-aware generalized visual grounding."""

    def __init__(self, config: IGVGConfig) -> None:
        super().__init__()
        channels = config.hidden_dim
        self.config = config
        self.encoder = MultiwayEncoder(config)
        self.image_projection = nn.Linear(config.encoder_dim, channels, bias=False)
        self.text_projection = nn.Linear(config.encoder_dim, channels, bias=False)
        self.generation = QueryGeneration(config)
        self.pyramid = FeaturePyramid(channels)
        self.pixel_decoder = PixelDecoder(channels)
        self.decoder = PointDecoder(config)
        self.class_head = nn.Linear(channels, 2)
        self.box_head = MLP(channels, channels, 4)
        self.global_head = nn.Conv2d(channels, 1, 1)
        self.existence_head = MLP(channels, channels, 2)
        with torch.no_grad():
            self.box_head.last.bias[2:] = _SIZE_LOGIT

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> IGVGOutput:
        """Find what a text refers to.

        Args:
            pixel_values: (B, 3, S, S) normalised picture.
            input_ids: (B, L) token ids.
            attention_mask: (B, L), 1 = token, 0 = padding; at least one token each.

        Raises:
            ValueError: the picture has another size than the network's, or the text more tokens than it has positions;
                on a CPU, what pads every text does not count.
        """
        side = self.config.image_size
        if pixel_values.shape[1:] != (3, side, side):
            raise ValueError(
                f"pictures of shape {tuple(pixel_values.shape[1:])}; the network takes (3, {side}, {side})"
            )
        if attention_mask.is_cpu and not torch.compiler.is_compiling():
            # Padding costs as much as words do. Elsewhere a look at the mask would wait for the device.
            places = torch.arange(1, attention_mask.shape[1] + 1, device=attention_mask.device)
            longest = int((attention_mask.any(dim=0) * places).amax())
            input_ids, attention_mask = input_ids[:, :longest], attention_mask[:, :longest]
        return self.ground(pixel_values, input_ids, attention_mask)

    def ground(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> IGVGOutput:
        """As `forward`, every token computed, the padding too."""
        grid = self.config.grid_size
        cells, text = self.encoder(pixel_values, input_ids, attention_mask)
        cells, text = self.image_projection(cells), self.text_projection(text)
        queries = self.generation(text, attention_mask, cells)
        maps = self.pyramid(cells.transpose(1, 2).unflatten(-1, (grid, grid)))
        states, references = self.decoder(queries.features, queries.points, maps)
        class_logits = [self.class_head(state) for state in states]
        boxes = [decode_boxes(self.box_head(state), references) for state in states]
        pixels = self.pixel_decoder(maps)
        return IGVGOutput(
            class_logits=class_logits[-1],
            boxes=boxes[-1],
            points=queries.points,
            instance_mask_logits=torch.einsum("bqc,bchw->bqhw", states[-1], pixels),
            global_mask_logits=self.global_head(pixels),
            existence_logits=self.judge_existence(pixels),
            attention_map=queries.attention_map,
            aux_class_logits=class_logits[:-1],
            aux_boxes=boxes[:-1],
        )

    def judge_existence(self, pixels: Tensor) -> Tensor:
        """Pixel embeddings (B, C, H, W) to the mean over pixels of an MLP's logits (B, 2).

        The mean is taken before the last linear map, with which it commutes.
        """
        logits: Tensor = self.existence_head.last(
            self.existence_head.embed(pixels.flatten(2).transpose(1, 2)).mean(dim=1)
        )
        return logits

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The model of a checkpoint folder, on the CPU, in evaluation mode.

        Raises:
            CheckpointError: the folder is no checkpoint, is damaged, or its tensors do not fit its configuration.
        """
        config, state = read_checkpoint(Path(folder))
        return cls.from_state(config, state, str(folder))

    @classmethod
    def from_state(cls, config: IGVGConfig, state: dict[str, Tensor], what: str) -> Self:
        """A model that takes over tensors without copying, in evaluation mode; `what` names them in errors.

        Raises:
            CheckpointError: tensors are missing, unexpected or of the wrong shape.
        """
        with torch.device("meta"):
            model = cls(config)
        check_state_dict(state, model.state_dict(), what)
        model.load_state_dict({name: _widen(tensor) for name, tensor in state.items()}, assign=True)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors; older ones are replaced only by whole new ones."""
        write_checkpoint(Path(folder), self.config, self.state_dict())


def _widen(tensor: Tensor) -> Tensor:
    """Stored halves come back as float32; counters stay as they are."""
    return tensor.float() if tensor.is_floating_point() else tensor
