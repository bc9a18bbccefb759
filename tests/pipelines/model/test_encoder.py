import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.model import IGVGConfig
from pipelines.model.encoder import Expert, MultiwayEncoder, MultiwayLayer

CONFIG = IGVGConfig(
    image_size=16, patch_size=4, encoder_dim=12, encoder_layers=3, encoder_heads=3, encoder_ffn=20, drop_path=0.6,
    vocab_size=30, text_positions=12, hidden_dim=16, num_queries=3, decoder_heads=4,
)  # fmt: skip


def run_token_by_token(layer: MultiwayLayer, tokens: Tensor, pictures: int, visible: Tensor) -> Tensor:
    """A multiway layer for one sample (T, E), its first tokens the picture's, with attention written out."""
    experts: list[Expert] = [layer.image] * pictures + [layer.text] * (len(tokens) - pictures)
    asked = [
        expert.qkv(expert.attention_norm(token)).view(3, layer.heads, -1)
        for expert, token in zip(experts, tokens, strict=True)
    ]
    mixed = []
    for query, _, _ in asked:
        heads = []
        for head in range(layer.heads):
            logits = torch.stack([query[head] @ key[head] / len(key[head]) ** 0.5 for _, key, _ in asked])
            weights = logits.masked_fill(~visible, -torch.inf).softmax(0)
            heads.append(sum(weight * value[head] for weight, (_, _, value) in zip(weights, asked, strict=True)))
        mixed.append(torch.cat(heads))
    results = []
    for expert, token, value in zip(experts, tokens, mixed, strict=True):
        token = token + expert.out(expert.mixed_norm(value))
        results.append(token + expert.contract(expert.hidden_norm(F.gelu(expert.expand(expert.ffn_norm(token))))))
    return torch.stack(results)


@torch.no_grad()
def test_each_token_passes_through_its_own_expert_and_attends_to_all_that_is_visible():
    torch.manual_seed(0)
    layer = MultiwayLayer(CONFIG, drop_path=0.0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    image, text = torch.randn(2, 5, 12), torch.randn(2, 4, 12)
    visible = torch.tensor([[True] * 9, [True] * 6 + [False] * 3])
    found = torch.cat(layer(image, text, visible[:, None, None]), dim=1)
    for number in range(2):
        expected = run_token_by_token(layer, torch.cat((image[number], text[number])), 5, visible[number])
        torch.testing.assert_close(found[number], expected, rtol=1e-4, atol=1e-4)


def test_stochastic_depth_drops_both_experts_of_a_sample_and_scales_the_others():
    torch.manual_seed(0)
    layer = MultiwayLayer(CONFIG, drop_path=0.5).train()
    for expert in (layer.image, layer.text):
        for linear in (expert.out, expert.contract):
            nn.init.zeros_(linear.weight)
            nn.init.ones_(linear.bias)
    image, text = layer(torch.zeros(64, 2, 12), torch.zeros(64, 3, 12), torch.ones(64, 1, 1, 5, dtype=torch.bool))
    added = torch.cat((image, text), dim=1)
    # Each of the two branches adds 1 / 0.5 or nothing, the same to every token of a sample.
    assert sorted(set(added.flatten().tolist())) == [0, 2, 4]
    assert torch.equal(added, added[:, :1, :1].expand_as(added))


def test_stochastic_depth_grows_from_none_to_the_rate_given():
    rates = [layer.drop_path for layer in MultiwayEncoder(CONFIG).layers]
    assert rates == pytest.approx([0, 0.3, 0.6])


@torch.no_grad()
def test_tokens_are_the_cells_in_row_major_order_after_the_class_token():
    encoder = MultiwayEncoder(CONFIG)
    nn.init.ones_(encoder.patches.weight)
    nn.init.zeros_(encoder.patches.bias)
    nn.init.zeros_(encoder.image_positions)
    pixels = torch.zeros(1, 3, 16, 16)
    pixels[0, 0, 4:8, 8:12] = 1
    assert encoder.embed_image(pixels)[0, :, 0].nonzero().tolist() == [[1 + 4 * 1 + 2]]


@torch.no_grad()
def test_text_positions_start_at_the_third_row_and_padding_is_zero():
    encoder = MultiwayEncoder(CONFIG)
    found = encoder.embed_text(torch.tensor([[5, 6, 1]]), torch.tensor([[1, 1, 0]]))[0]
    assert torch.equal(found[1], encoder.words.weight[6] + encoder.text_positions[3])
    assert not found[2].any()


def test_fresh_layers_pass_words_on_instead_of_drowning_them_in_positions():
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, encoder_dim=48, encoder_ffn=96)
    encoder = MultiwayEncoder(config).eval()
    picture = torch.randn(1, 3, config.image_size, config.image_size)
    seen = torch.ones(1, 2, dtype=torch.int64)
    first, second = (encoder(picture, torch.tensor([[5, word]]), seen)[1][0, 1] for word in (6, 7))
    moved = encoder(picture, torch.tensor([[6, 5]]), seen)[1][0, 0]
    other_word, other_place = (torch.cosine_similarity(first, other, dim=0) for other in (second, moved))
    assert other_word < other_place - 0.3


def test_fresh_maps_keep_the_variance_and_those_that_add_to_tokens_share_it_among_layers():
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, encoder_dim=96, encoder_ffn=192)
    encoder = MultiwayEncoder(config)
    for layer in encoder.layers:
        for expert in (layer.image, layer.text):
            for linear, share in ((expert.qkv, 1), (expert.expand, 1), (expert.out, 6), (expert.contract, 6)):
                deviation = (linear.in_features * share) ** -0.5
                assert linear.weight.std().item() == pytest.approx(deviation, rel=0.05)
                assert linear is expert.qkv or not linear.bias.any()
        # What all cells ask for, and all words offer: attention of exp(1.5) to each word beside a cell.
        asked, offered = layer.image.qkv.bias[:96], layer.text.qkv.bias[96:192]
        assert (asked[:32] @ offered[:32] / 32**0.5).item() == pytest.approx(1.5)
        assert not layer.image.qkv.bias[96:].any()
        assert not layer.text.qkv.bias[:96].any()


@torch.no_grad()
def test_the_cells_come_back_in_their_order_without_the_class_token():
    torch.manual_seed(0)
    encoder = MultiwayEncoder(CONFIG).eval()
    pixels, ids, attended = torch.randn(1, 3, 16, 16), torch.tensor([[5, 6]]), torch.ones(1, 2, dtype=torch.int64)
    whole, _ = encoder.fuse(encoder.embed_image(pixels), encoder.embed_text(ids, attended), attended)
    assert whole.shape[1] == 1 + CONFIG.grid_size**2
    assert torch.equal(encoder(pixels, ids, attended)[0], whole[:, 1:])
