"""The network at its published size against numbers of the published implementation (weights seeded from key names)."""

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.config.presets import BASE
from pipelines.model import IGVGModel, IGVGOutput
from pipelines.model.convert.beit3 import load_beit3_encoder
from pipelines.model.convert.instancevg import convert_state
from pipelines.model.cpu import optimize_for_cpu
from pipelines.model.encoder import MultiwayEncoder
from pipelines.model.query_generation import select_points, select_text_tokens
from tests.support.paths import GOLDENS

pytestmark = pytest.mark.skipif(not GOLDENS.is_dir(), reason="the reference numbers in ../shared/goldens are not here")

CLOSE, LOGITS, MASKS = 1e-4, 1e-4, 5e-3


@pytest.fixture(scope="module", autouse=True)
def _two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def seeding() -> ModuleType:
    spec = importlib.util.spec_from_file_location("seeded_weights", GOLDENS / "seeded_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def published(seeding: ModuleType) -> dict[str, Tensor]:
    arrays = seeding.seeded_state_dict(GOLDENS / "instancevg_base_320_state_keys.json", head_gain=1.5)
    return {key: torch.from_numpy(np.asarray(array)) for key, array in arrays.items()}


@pytest.fixture(scope="module")
def model(published: dict[str, Tensor]) -> IGVGModel:
    config, state = convert_state(published)
    return IGVGModel.from_state_dict(config, state, "seeded weights")


@pytest.fixture(scope="module")
def inputs(seeding: ModuleType) -> tuple[Tensor, Tensor, Tensor]:
    pixels, ids, mask = seeding.reference_inputs()
    return torch.from_numpy(pixels), torch.from_numpy(ids), torch.from_numpy(mask)


class Run:
    """One forward pass: the output, what the parts of the network returned, and the reference's numbers."""

    def __init__(self, model: IGVGModel, inputs: tuple[Tensor, Tensor, Tensor], score: str) -> None:
        self.model, self.inputs = model, inputs
        self.golden = np.load(GOLDENS / f"forward_sharp_{score}.npz")
        self.parts: dict[str, object] = {}
        hooks = [
            module.register_forward_hook(lambda _, given, made, name=name: self.parts.__setitem__(name, made))
            for name, module in model.named_modules()
        ]
        model.query_generation.text_score = score
        with torch.inference_mode():
            self.output: IGVGOutput = model(*inputs)
            self.text = self.parts["text_projection"]
            self.selected = select_text_tokens(self.text, inputs[2], 10, score)
            self.attended, self.weights = model.query_generation.attend_to_image(
                self.selected.features, self.parts["image_projection"]
            )
        for hook in hooks:
            hook.remove()

    def check(self, name: str, value: Tensor, tolerance: float = CLOSE) -> None:
        np.testing.assert_allclose(value.float().numpy(), self.golden[name], rtol=0, atol=tolerance, err_msg=name)

    def check_statistics(self, name: str, value: Tensor, tolerance: float = CLOSE) -> None:
        found = torch.stack((value.mean(), value.std(correction=0), value.min(), value.max()))
        self.check(f"{name}__stats", found, tolerance)


@pytest.fixture(scope="module", params=["mean", "l2"])
def run(request: pytest.FixtureRequest, model: IGVGModel, inputs: tuple[Tensor, Tensor, Tensor]) -> Run:
    return Run(model, inputs, request.param)


def test_all_697_published_tensors_are_used_or_known_to_be_unused(published):
    counters = [f"head.unet_decoder.bn{n}_{d}.num_batches_tracked" for n in (1, 2) for d in (4, 3, 2)]
    full = (
        published | {key: torch.tensor(7) for key in counters} | {"head.detrloss.criterion.empty_weight": torch.ones(2)}
    )
    assert full.keys() == {
        entry["key"] for entry in json.loads((GOLDENS / "instancevg_base_320_state_keys.json").read_text())
    }
    _, state = convert_state(full)
    assert state["pixel_decoder.blocks.1.bn2.num_batches_tracked"] == 7


def test_a_published_checkpoint_keeps_the_published_behavior(model):
    config = model.config
    assert (config.text_score, config.reference) == ("mean", "shifted")
    assert (config.image_size, config.num_queries, config.drop_path) == (320, 10, 0.1)


def test_seeded_weights_are_those_of_the_reference(published):
    for entry in json.loads((GOLDENS / "seeded_weights_check.json").read_text()):
        first = published[entry["key"]].flatten()[:4]
        torch.testing.assert_close(first, torch.tensor(entry["first4_gain1.5"]), rtol=0, atol=1e-7)


def test_the_encoder_is_the_published_one(run):
    patches = run.parts["encoder.patch_embed"].flatten(2).transpose(1, 2)
    run.check(
        "vision_embed_first8",
        torch.cat((run.model.encoder.cls_token.expand(2, -1, -1), patches), 1)[..., :8].detach(),
    )
    run.check("text_embed_first8", run.parts["encoder.text_embed"][..., :8])
    for number in range(12):
        image, text = run.parts[f"encoder.layers.{number}"]
        run.check_statistics(f"enc_layer{number}", torch.cat((image, text), dim=1))
        run.check(f"enc_layer{number}_cls_first16", image[:, 0, :16])
        run.check(f"enc_layer{number}_firsttext_first16", text[:, 0, :16])
    image, text = run.parts["encoder.image_norm"], run.parts["encoder.text_norm"]
    run.check("cls", image[:, 0])
    for name, tokens in (("img_tokens", image[:, 1:]), ("text_tokens", text)):
        run.check(f"{name}_first8", tokens[..., :8])
        run.check(f"{name}_mean", tokens.mean(-1))
        run.check(f"{name}_std", tokens.std(-1, correction=0))
        run.check_statistics(name, tokens)


def test_projections_and_the_pyramid_are_the_published_ones(run):
    patches = run.parts["image_projection"].transpose(1, 2).unflatten(-1, (20, 20))
    run.check("img_embedding_first8", patches[:, :8])
    run.check_statistics("img_embedding", patches)
    run.check("lan_embedding", run.text)
    for level, (features, stride) in enumerate(zip(run.parts["feature_pyramid"], (8, 4, 2, 1), strict=True), start=1):
        assert list(features.shape) == run.golden[f"fpn{level}_shape"].tolist()
        run.check(f"fpn{level}_slice", features[:, :16, ::stride, ::stride])
        run.check(f"fpn{level}_chan_mean", features.mean((2, 3)))
        run.check(f"fpn{level}_chan_std", features.std((2, 3), correction=0))
        run.check_statistics(f"fpn{level}", features)


def test_the_same_tokens_and_points_are_selected(run):
    assert run.selected.indices.tolist() == run.golden["aqsm_text_indices"].tolist()
    assert run.selected.mask.int().tolist() == run.golden["aqsm_text_selected_mask"].tolist()
    run.check("aqsm_selected_text_feat", run.selected.features)
    run.check("aqsm_t2i_text_out", run.attended)
    run.check("aqsm_attn_map", run.weights.unflatten(-1, (20, 20)))
    run.check("aqsm_global_attn_map", run.output.attention_map, 1e-5)
    picked = select_points(run.output.attention_map, 10, 0.003)
    assert picked.tolist() == run.golden["aqsm_point_indices"].tolist()
    run.check("aqsm_points_xy", run.output.points, 0)
    run.check("query_embed", run.parts["query_generation"].features)


def test_the_decoder_is_the_published_one(run):
    run.check("query_pos", run.parts["decoder.query_pos_embed"])
    run.check("ref_delta_sigmoid", run.parts["decoder.reference_offset"].sigmoid())
    states, reference_points = run.parts["decoder"]
    run.check("init_reference", reference_points)
    run.check("inter_references", reference_points.expand(3, -1, -1, -1))
    run.check("decoder_hidden", torch.stack(states), 2e-4)
    queries = run.parts["query_generation"].features
    for number, state in enumerate(states):
        layer = f"decoder.layers.{number}."
        run.check(f"dec{number}_self_attn_out", queries + run.parts[layer + "self_attn"], 2e-4)
        middle = run.parts[layer + "self_attn_norm"]
        run.check(f"dec{number}_cross_attn_out", middle + run.parts[layer + "cross_attn"], 2e-4)
        queries = state


def test_classes_boxes_and_masks_are_the_published_ones(run):
    output = run.output
    run.check("class_logits", torch.stack([*output.aux_class_logits, output.class_logits]), LOGITS)
    run.check("boxes_cxcywh", torch.stack([*output.aux_boxes, output.boxes]), LOGITS)
    pixels = run.parts["pixel_decoder"]
    assert list(pixels.shape) == run.golden["pixel_embed_shape"].tolist()
    run.check("pixel_embed_slice", pixels[:, :32, ::8, ::8])
    run.check("pixel_embed_chan_mean", pixels.mean((2, 3)))
    run.check("pixel_embed_chan_std", pixels.std((2, 3), correction=0))
    run.check_statistics("pixel_embed", pixels)
    run.check("inst_mask_logits_low", output.instance_mask_logits, MASKS)
    run.check("global_mask_logits_low", output.global_mask_logits, MASKS)
    for name, logits, stride in (
        ("inst_mask_final", output.instance_mask_logits, 16),
        ("global_mask_final", output.global_mask_logits, 8),
    ):
        enlarged = F.interpolate(logits, size=(320, 320), mode="bilinear", align_corners=True)
        assert list(enlarged.shape) == run.golden[f"{name}_shape"].tolist()
        run.check(f"{name}_slice", enlarged[:, :, ::stride, ::stride], MASKS)
        run.check_statistics(name, enlarged, MASKS)


def test_the_network_for_cpus_gives_the_published_results(run):
    optimized = optimize_for_cpu(run.model)
    optimized.query_generation.text_score = run.model.query_generation.text_score
    with torch.inference_mode():
        output = optimized(*run.inputs)
    run.check("class_logits", torch.stack([*output.aux_class_logits, output.class_logits]), LOGITS)
    run.check("boxes_cxcywh", torch.stack([*output.aux_boxes, output.boxes]), LOGITS)
    run.check("aqsm_points_xy", output.points, 0)
    run.check("nt_logits", output.existence_logits, LOGITS)
    run.check("inst_mask_logits_low", output.instance_mask_logits, MASKS)
    run.check("global_mask_logits_low", output.global_mask_logits, MASKS)


def test_the_existence_branch_is_the_published_one(run):
    run.check("nt_logits", run.output.existence_logits, LOGITS)
    with torch.inference_mode():
        by_pixel = run.model.existence_head(run.parts["pixel_decoder"].permute(0, 2, 3, 1))
    run.check("nt_pixel_logits_slice", by_pixel[:, ::8, ::8], LOGITS)


@pytest.fixture(scope="module")
def beit3_file(seeding: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    arrays = seeding.seeded_state_dict(GOLDENS / "beit3_base_224_state_keys.json")
    file = tmp_path_factory.mktemp("beit3") / "beit3_base_patch16_224.zip"
    state = {key: torch.from_numpy(np.asarray(array)) for key, array in arrays.items()}
    torch.save({"model": state | {"logit_scale": torch.ones(())}}, file)
    yield file
    file.unlink()


def open_encoder(image_size: int, file: Path) -> MultiwayEncoder:
    with torch.device("meta"):
        model = IGVGModel(replace(BASE, image_size=image_size))
    model.to_empty(device="cpu")
    assert load_beit3_encoder(model, file) == ["logit_scale"]
    return model.encoder.eval()


@torch.inference_mode()
def test_beit3_alone_gives_the_published_tokens(beit3_file, inputs, seeding):
    golden, (_, ids, mask) = np.load(GOLDENS / "beit3_base.npz"), inputs
    encoder = open_encoder(224, beit3_file)
    pixels = np.random.Generator(np.random.PCG64(2)).standard_normal((2, 3, 224, 224)).astype(np.float32)
    image, text = encoder.embed_image(torch.from_numpy(pixels)), encoder.embed_text(ids, mask)
    for name, tokens in (
        ("both_224", torch.cat(encoder.encode(image, text, mask), dim=1)),
        ("image_only_224", encoder.encode(image, text[:, :0], mask[:, :0])[0]),
        ("text_only", encoder.encode(image[:, :0], text, mask)[1]),
    ):
        np.testing.assert_allclose(tokens[..., :16], golden[f"{name}_first16"], rtol=0, atol=CLOSE, err_msg=name)
        np.testing.assert_allclose(tokens.mean(-1), golden[f"{name}_mean"], rtol=0, atol=CLOSE, err_msg=name)
        np.testing.assert_allclose(
            tokens.std(-1, correction=0), golden[f"{name}_std"], rtol=0, atol=CLOSE, err_msg=name
        )


@torch.inference_mode()
def test_beit3_of_224_pixels_works_at_320(beit3_file, inputs):
    golden = np.load(GOLDENS / "beit3_base.npz")
    encoder = open_encoder(320, beit3_file)
    np.testing.assert_allclose(encoder.image_pos_embed, golden["pos_A_320_from_224"][2:], rtol=0, atol=1e-6)
    image, text = encoder(*inputs)
    np.testing.assert_allclose(image[..., :16], golden["at320_img_first16"], rtol=0, atol=CLOSE)
    np.testing.assert_allclose(text[..., :16], golden["at320_text_first16"], rtol=0, atol=CLOSE)
