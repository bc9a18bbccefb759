"""The network's outputs for batches are those for each example alone."""

from __future__ import annotations

import numpy as np
import torch

from pipelines.data.batch import Example, collate
from pipelines.model import IGVGModel
from pipelines.prediction.predictor import predict_batches
from pipelines.prediction.raw_output import RawOutput
from tests.support.small_network import CONFIG

NUM_WORDS = (1, 4, 2)


def make_example(index: int) -> Example:
    random = np.random.default_rng(index)
    side = CONFIG.image_size
    return Example(
        id=f"drawn/{index}/0",
        image=random.integers(0, 256, size=(side, side, 3), dtype=np.uint8),
        input_ids=[0, *random.integers(4, CONFIG.vocab_size, size=NUM_WORDS[index]).tolist(), 2],
        original_size=(20 + index, 30),
        boxes=np.zeros((0, 4), dtype=np.float32),
        masks=np.zeros((0, 0, 0), dtype=bool),
    )


def predict(model: IGVGModel, *batches: list[int]) -> list[RawOutput]:
    collated = [collate([make_example(index) for index in batch], 1) for batch in batches]
    return [output for outputs in predict_batches(model, collated, "fp32", 0.7) for output in outputs]


def test_an_example_in_a_batch_gives_what_it_gives_alone() -> None:
    torch.manual_seed(0)
    model = IGVGModel(CONFIG)
    together, alone = predict(model, [0, 1, 2]), predict(model, [0], [1], [2])
    assert not model.training
    assert [output.id for output in together] == [output.id for output in alone] == [f"drawn/{n}/0" for n in range(3)]
    for one, other in zip(together, alone, strict=True):
        assert one.original_size == other.original_size
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-5)
        np.testing.assert_allclose(one.class_logits, other.class_logits, atol=1e-4)
        np.testing.assert_allclose(one.global_mask_logits, other.global_mask_logits, atol=1e-2)
