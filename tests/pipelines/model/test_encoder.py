import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.model import IGVGConfig
from pipelines.model.encoder import ModalityExpert, MultiwayEncoder, MultiwayLayer

CONFIG = IGVGConfig(
    image_size=16, patch_size=4, encoder_dim=12, encoder_layers=3, encoder_heads=3, encoder_ffn=20, drop_path=0.6,
    vocab_size=30, text_positions=12, hidden_dim=16, num_queries=3, decoder_heads=4,
)  # fmt: skip


def run_token_by_token(layer: MultiwayLayer, tokens: Tensor, num_image_tokens: int, attention_mask: Tensor) -> Tensor:
    """A multiway layer for one sample (T, E), the image's first, with attention written out."""
    experts: list[ModalityExpert] = [layer.image_expert] * num_image_tokens + [layer.text_expert] * (
        len(tokens) - num_image_tokens
    )
    qkv = [
        expert.qkv(expert.attn_norm(token)).view(3, layer.heads, -1)
        for expert, token in zip(experts, tokens, strict=True)
    ]
    attended = []
    for query, _, _ in qkv:
        heads = []
        for head in range(layer.heads):
            logits = torch.stack([query[head] @ key[head] / len(key[head]) ** 0.5 for _, key, _ in qkv])
            weights = logits.masked_fill(~attention_mask, -torch.inf).softmax(0)
            heads.append(sum(weight * value[head] for weight, (_, _, value) in zip(weights, qkv, strict=True)))
        attended.append(torch.cat(heads))
    results = []
    for expert, token, value in zip(experts, tokens, attended, strict=True):
        token = token + expert.out_proj(expert.inner_attn_norm(value))
        results.append(token + expert.fc2(expert.inner_ffn_norm(F.gelu(expert.fc1(expert.ffn_norm(token))))))
    return torch.stack(results)


@torch.no_grad()
def test_each_token_passes_through_its_own_expert_and_attends_to_all_tokens_of_the_mask():
    torch.manual_seed(0)
    layer = MultiwayLayer(CONFIG, drop_path=0.0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    image, text = torch.randn(2, 5, 12), torch.randn(2, 4, 12)
    attention_mask = torch.tensor([[True] * 9, [True] * 6 + [False] * 3])
    found = torch.cat(layer(image, text, attention_mask[:, None, None]), dim=1)
    for number in range(2):
        expected = run_token_by_token(layer, torch.cat((image[number], text[number])), 5, attention_mask[number])
        torch.testing.assert_close(found[number], expected, rtol=1e-4, atol=1e-4)


def test_stochastic_depth_drops_both_experts_of_a_sample_and_scales_the_others():
    torch.manual_seed(0)
    layer = MultiwayLayer(CONFIG, drop_path=0.5).train()
    for expert in (layer.image_expert, layer.text_expert):
        for linear in (expert.out_proj, expert.fc2):
            nn.init.zeros_(linear.weight)
            nn.init.ones_(linear.bias)
    image, text = layer(torch.zeros(64, 2, 12), torch.zeros(64, 3, 12), torch.ones(64, 1, 1, 5, dtype=torch.bool))
    added = torch.cat((image, text), dim=1)
    # Each of the two branches adds 1 / 0.5 or nothing, the same to every token of a sample.
    assert sorted(set(added.flatten().tolist())) == [0, 2, 4]
    assert torch.equal(added, added[:, :1, :1].expand_as(added))


def test_stochastic_depth_grows_from_none_to_the_rate_given():
    rates = [layer.drop_path.rate for layer in MultiwayEncoder(CONFIG).layers]
    assert rates == pytest.approx([0, 0.3, 0.6])


@torch.no_grad()
def test_image_tokens_are_the_class_token_and_the_patches_in_row_major_order():
    encoder = MultiwayEncoder(CONFIG)
    nn.init.ones_(encoder.patch_embed.weight)
    nn.init.zeros_(encoder.patch_embed.bias)
    nn.init.zeros_(encoder.image_pos_embed)
    pixels = torch.zeros(1, 3, 16, 16)
    pixels[0, 0, 4:8, 8:12] = 1
    assert encoder.embed_image(pixels)[0, :, 0].nonzero().tolist() == [[1 + 4 * 1 + 2]]


@torch.no_grad()
def test_text_positions_start_at_the_third_row_and_padding_is_zero():
    encoder = MultiwayEncoder(CONFIG)
    found = encoder.embed_text(torch.tensor([[5, 6, 1]]), torch.tensor([[1, 1, 0]]))[0]
    assert torch.equal(found[1], encoder.text_embed.weight[6] + encoder.text_pos_embed[3])
    assert not found[2].any()


def test_text_tokens_of_fresh_layers_depend_on_the_word_more_than_on_its_position():
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, encoder_dim=48, encoder_ffn=96)
    encoder = MultiwayEncoder(config).eval()
    image = torch.randn(1, 3, config.image_size, config.image_size)
    mask = torch.ones(1, 2, dtype=torch.int64)
    first, second = (encoder(image, torch.tensor([[5, word]]), mask)[1][0, 1] for word in (6, 7))
    moved = encoder(image, torch.tensor([[6, 5]]), mask)[1][0, 0]
    other_word, other_position = (torch.cosine_similarity(first, other, dim=0) for other in (second, moved))
    assert other_word < other_position - 0.3


def test_fresh_maps_keep_the_variance_and_those_that_add_to_tokens_share_it_among_layers():
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, encoder_dim=96, encoder_ffn=192)
    encoder = MultiwayEncoder(config)
    for layer in encoder.layers:
        for expert in (layer.image_expert, layer.text_expert):
            for linear, share in ((expert.qkv, 1), (expert.fc1, 1), (expert.out_proj, 6), (expert.fc2, 6)):
                deviation = (linear.in_features * share) ** -0.5
                assert linear.weight.std().item() == pytest.approx(deviation, rel=0.05)
                assert linear is expert.qkv or not linear.bias.any()
        # The biases add a logit of 1.5 to every pair of an image query and a text key.
        query, key = layer.image_expert.qkv.bias[:96], layer.text_expert.qkv.bias[96:192]
        assert (query[:32] @ key[:32] / 32**0.5).item() == pytest.approx(1.5)
        assert not layer.image_expert.qkv.bias[96:].any()
        assert not layer.text_expert.qkv.bias[:96].any()


@torch.no_grad()
def test_the_patch_tokens_are_returned_in_order_without_the_class_token():
    torch.manual_seed(0)
    encoder = MultiwayEncoder(CONFIG).eval()
    pixels, ids, attended = torch.randn(1, 3, 16, 16), torch.tensor([[5, 6]]), torch.ones(1, 2, dtype=torch.int64)
    whole, _ = encoder.encode(encoder.embed_image(pixels), encoder.embed_text(ids, attended), attended)
    assert whole.shape[1] == 1 + CONFIG.grid_size**2
    assert torch.equal(encoder(pixels, ids, attended)[0], whole[:, 1:])
