"""The feature pyramid and the U-Net: sizes, normalization, and what a block computes."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pipelines.model.pixel_decoder import LayerNorm2d, PixelDecoder, SimpleFeaturePyramid, UNetBlock


def test_a_layer_norm_normalizes_the_channels_of_each_pixel() -> None:
    torch.manual_seed(0)
    features, norm = torch.randn(2, 8, 3, 5), LayerNorm2d(8)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    for row, column in ((0, 0), (2, 4)):
        expected = F.layer_norm(features[:, :, row, column], (8,), norm.weight, norm.bias, 1e-5)
        torch.testing.assert_close(norm(features)[:, :, row, column], expected)


def test_the_pyramid_has_four_sizes_and_the_pixel_decoder_returns_the_finest() -> None:
    torch.manual_seed(0)
    maps = SimpleFeaturePyramid(16)(torch.randn(2, 16, 4, 4))
    assert [tuple(level.shape) for level in maps] == [(2, 16, side, side) for side in (16, 8, 4, 2)]
    assert PixelDecoder(16)(maps).shape == (2, 16, 16, 16)


def test_a_block_convolves_the_upsampled_coarse_map_beside_the_fine_one() -> None:
    torch.manual_seed(0)
    block = UNetBlock(4).eval()
    coarse, fine = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 6, 6)
    upsampled = F.interpolate(coarse, (6, 6), mode="bilinear", align_corners=True)
    # A batch norm that was never trained divides by √(1 + 1e-5).
    scale = (1 + block.bn1.eps) ** -0.5
    hidden = scale * F.conv2d(torch.cat((upsampled, fine), dim=1), block.conv1.weight, padding=1)
    expected = scale * F.conv2d(hidden.relu(), block.conv2.weight, padding=1)
    torch.testing.assert_close(block(coarse, fine), expected.relu())
