"""Which settings are part of a stage's fingerprint."""

from __future__ import annotations

from pipelines.config.model import ADDED_KEYS

# Settings that do not change a byte of what a stage writes.
NOT_FINGERPRINTED = frozenset({
    "workers", "cache", "cache_limit", "checkpoint_minutes", "keep_states", "keep_last_state", "max_skipped_steps",
    "keep_validation_predictions", "log_steps", "log_with", "profile_steps", "activation_checkpointing",
})  # fmt: skip
# Settings of later versions, and the values under which everything is as before: these are not fingerprinted.
ADDED_SETTINGS: dict[str, object] = {
    "ratios": [],
    "best_metric": "",
    "shuffle_block_shards": 0,
    "exclude_held_out": False,
    "held_out": [],
    "init_part": "network",
    **{f"model.{key}": value for key, value in ADDED_KEYS.items()},
    "compile": False,
    "ema_decay": 0.0,
    "frozen_encoder_layers": 0,
    "sync_batchnorm": False,
    "frozen_batchnorm": False,
    "partial": False,
}
