"""What does not work with a network that is split is refused before the training."""

from __future__ import annotations

import pytest

from pipelines.runtime.precision import ComputeDtype
from pipelines.training.sharding import check_settings
from shards.errors import SettingsError
from tests.support.small_training import small_settings


@pytest.mark.parametrize(
    ("compiled", "compute_dtype", "named"),
    [
        (True, "fp32", "compile=true does not work with a network that is split .*; set compile=false"),
        (False, "fp16", "precision=fp16 does not work with a network that is split .*; set precision=bf16"),
    ],
)
def test_settings_that_need_the_whole_network_are_refused(
    compiled: bool, compute_dtype: ComputeDtype, named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        check_settings(small_settings(compile=compiled), compute_dtype)
    check_settings(small_settings(), "bf16")
