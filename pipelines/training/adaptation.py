"""Passes over the network before it is trained; its parameters and their names stay."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pipelines.config.settings import TrainSettings
from pipelines.model import IGVGModel
from pipelines.model.encoder import MultiwayEncoder, MultiwayLayer
from pipelines.training.batch_norm import freeze_batch_norms, synchronize_batch_norms
from shards.errors import SettingsError


class CheckpointedLayer(MultiwayLayer):
    """An encoder layer of which only the inputs are kept for the backward pass, which computes it again."""

    def forward(self, image: Tensor, text: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """As in `MultiwayLayer`, with the same stochastic depth when it is computed again."""
        if not torch.is_grad_enabled():
            return super().forward(image, text, attention_mask)
        tokens: tuple[Tensor, Tensor] = checkpoint(
            super().forward, image, text, attention_mask, use_reentrant=False, preserve_rng_state=True
        )
        return tokens


def adapt_model(model: IGVGModel, settings: TrainSettings, world_size: int) -> None:
    """Freeze layers, choose the batch norms and checkpoint activations, as the settings say.

    Raises:
        SettingsError: more layers are to be frozen than there are.
    """
    freeze_encoder_layers(model.encoder, settings.frozen_encoder_layers)
    if settings.frozen_batchnorm:
        freeze_batch_norms(model)
    elif settings.sync_batchnorm and world_size > 1:
        synchronize_batch_norms(model)
    if settings.activation_checkpointing:
        checkpoint_activations(model.encoder)


def freeze_encoder_layers(encoder: MultiwayEncoder, count: int) -> None:
    """Take the first `count` layers, and the embeddings below them, out of the training; 0: nothing.

    Frozen layers compute what they compute in evaluation: they drop no paths. Nothing of them is kept for the backward
    pass, which ends above them.

    Raises:
        SettingsError: the encoder has fewer layers.
    """
    if count > len(encoder.layers):
        raise SettingsError(
            f"frozen_encoder_layers is {count}, and the encoder has {len(encoder.layers)} layers; "
            f"set {len(encoder.layers)} at most"
        )
    if not count:
        return
    for parameter in (encoder.cls_token, encoder.image_pos_embed, encoder.text_pos_embed):
        parameter.requires_grad_(False)
    layers = [layer for layer in encoder.layers if isinstance(layer, MultiwayLayer)][:count]
    for module in (encoder.patch_embed, encoder.text_embed, *layers):
        module.requires_grad_(False)
    for layer in layers:
        layer.drop_path.rate = 0.0


def checkpoint_activations(encoder: MultiwayEncoder) -> None:
    """Keep only the inputs of the layers that are trained for the backward pass."""
    for layer in encoder.layers:
        if type(layer) is MultiwayLayer and any(parameter.requires_grad for parameter in layer.parameters()):
            layer.__class__ = CheckpointedLayer
