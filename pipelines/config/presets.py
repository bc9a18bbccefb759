"""The presets of `igvg train`: the published recipes for two sizes, and a small network for two CPU cores."""

from __future__ import annotations

from pipelines.config.model import IGVGConfig
from pipelines.config.settings import LossSettings, OptimizerSettings, PostprocessSettings, Preset, TrainSettings
from shards.errors import SettingsError

BASE = IGVGConfig()
"""The published base size (BEiT-3 base)."""
LARGE = IGVGConfig(encoder_dim=1024, encoder_layers=24, encoder_heads=16, encoder_ffn=4096, drop_path=0.0)
"""The published large size (BEiT-3 large)."""
TINY = IGVGConfig(
    image_size=96, patch_size=12, encoder_dim=128, encoder_layers=4, encoder_heads=8, encoder_ffn=384, drop_path=0.0,
    vocab_size=1000, text_positions=64, hidden_dim=64, decoder_heads=4, decoder_ffn=128, generation_ffn=128,
    dropout=0.0, reference="point",
)  # fmt: skip
"""A size that trains from scratch in minutes on two CPU cores."""

_TRAIN_PRESETS: dict[str, TrainSettings] = {
    "base": TrainSettings(preset="base", model=BASE),
    "large": TrainSettings(preset="large", model=LARGE),
    "tiny": TrainSettings(
        preset="tiny",
        epochs=2,
        batch_size=32,
        precision="auto",
        mask_targets="decoder",
        validation_limit=400,
        model=TINY,
        loss=LossSettings(existence=0.5),
        postprocess=PostprocessSettings(score_threshold=0.45, nms=True, nms_iou=0.5),
        optimizer=OptimizerSettings(
            encoder_lr=7e-4, head_lr=7e-4, eps=1e-8, amsgrad=False, schedule="cosine", warmup_epochs=0.1, clip_norm=1.0
        ),
    ),
}


def train_preset(name: Preset) -> TrainSettings:
    """The settings of `--preset NAME`.

    Raises:
        SettingsError: there is no such preset.
    """
    if name not in _TRAIN_PRESETS:
        raise SettingsError(f"no preset {name!r}; there are {', '.join(_TRAIN_PRESETS)}")
    return _TRAIN_PRESETS[name]


def find_preset(model: IGVGConfig) -> Preset | None:
    """The preset whose network is `model`, if there is one."""
    return next((settings.preset for settings in _TRAIN_PRESETS.values() if settings.model == model), None)
