"""The BEiT-3 encoder of a published checkpoint: 491 tensors, alone or inside a network that was built around them.

BEiT-3 files hold them as `beit3.*`, checkpoints of InstanceVG, SimVG and PropVG as `vis_enc.beit3.*`, those of DeRIS as
`understanding_branch.vis_enc.beit3.*`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import isqrt
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.model.convert.key_mapping import BEIT3, IGNORED, build_key_mapping, combine_sources
from pipelines.model.convert.torch_file import read_tensors
from pipelines.model.igvg import IGVGModel
from pipelines.model.serialization import report_mismatch
from shards.errors import CheckpointError
from shards.progress import log

_BEIT3 = "beit3."
_ANCHOR = _BEIT3 + "text_embed.weight"
_IMAGE_POSITIONS = _BEIT3 + "encoder.embed_positions.A.weight"
_PATCH_FILTERS = _BEIT3 + "vision_embed.proj.weight"
# Only InstanceVG has it; `igvg import` reads such files whole.
_INSTANCEVG = "head.query_generation.query_embed.weight"


def load_beit3_encoder(model: IGVGModel, file: Path) -> list[str]:
    """Load the BEiT-3 encoder of a published checkpoint, and log how many tensors were taken and left.

    Image positions are resized to the model's grid, and filters of larger patches to its patches.

    Returns:
        Keys of the file that the encoder does not use.

    Raises:
        CheckpointError: the file cannot be read safely, holds no BEiT-3 encoder or several, lacks tensors of it, or it
            is of another size than the model's encoder.
    """
    found = read_tensors(file)
    prefix = _find_prefix(found, file)
    remarks = _resize(found, prefix, model)
    sources = {
        name: replace(source, keys=tuple(prefix + _BEIT3 + key.removeprefix(BEIT3) for key in source.keys))
        for name, source in build_key_mapping(model.config).items()
        if name.startswith("encoder.")
    }
    state = combine_sources(found, sources, model.state_dict(), str(file))
    used = {key for source in sources.values() for key in source.keys}
    left = found.keys() - used
    layers = f"{prefix}{_BEIT3}encoder.layers."
    report_mismatch(str(file), (), [key for key in left if key.startswith(layers)], ())
    model.load_state_dict(state, strict=False)
    taken = f"{len(used)} of {len(found)} tensors were taken, its BEiT-3 encoder ({prefix}{_BEIT3}*)"
    if _INSTANCEVG in found:
        remarks.append("igvg import takes the whole network")
    log("; ".join([f"{file}: {taken}", _describe_left(left), *remarks]))
    return sorted(key for key in left if not IGNORED.fullmatch(BEIT3 + key.removeprefix(prefix + _BEIT3)))


def _describe_left(left: Iterable[str]) -> str:
    """How many tensors of which parts of the network were left."""
    parts = Counter(key.split(".")[0] for key in left)
    listed = ", ".join(f"{count} of {part}" for part, count in sorted(parts.items()))
    return f"left: {parts.total()} ({listed})" if parts else "left: 0"


def _find_prefix(found: Mapping[str, Tensor], file: Path) -> str:
    """What precedes `beit3.` in the keys of the encoder."""
    prefixes = sorted(key.removesuffix(_ANCHOR) for key in found if key == _ANCHOR or key.endswith("." + _ANCHOR))
    if len(prefixes) == 1:
        return prefixes[0]
    what = f"{len(prefixes)} BEiT-3 encoders ({', '.join(prefixes)})" if prefixes else f"no BEiT-3 encoder ({_ANCHOR})"
    raise CheckpointError(
        f"{file} holds {what}; give a published BEiT-3 file, or a checkpoint of InstanceVG, SimVG, PropVG or DeRIS"
    )


def _resize(found: dict[str, Tensor], prefix: str, model: IGVGModel) -> list[str]:
    """Resize image positions and patch filters in place; returns what is worth a remark."""
    if (key := prefix + _IMAGE_POSITIONS) in found:
        found[key] = resize_positions(found[key], model.config.grid_size)
    filters = found.get(prefix + _PATCH_FILTERS)
    if filters is None or filters.dim() != 4 or filters.shape[-1] == model.config.patch_size:
        return []
    resized = sum_patch_filters(filters, model.config.patch_size)
    found[prefix + _PATCH_FILTERS] = resized
    old, new = filters.shape[-1], resized.shape[-1]
    return [f"its filters of {old} × {old} pixels were summed to {new} × {new}"] if new != old else []


def resize_positions(table: Tensor, side: int) -> Tensor:
    """Image positions (3 + n², E) to (3 + side², E), bicubically; the three rows of no patch are kept."""
    special, patches = table[:3], table[3:]
    old = isqrt(len(patches))
    if old == side or old * old != len(patches):
        return table
    grid = patches.T.reshape(1, -1, old, old)
    resized = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat((special, resized.flatten(2)[0].T))


def sum_patch_filters(filters: Tensor, patch_size: int) -> Tensor:
    """Filters (E, 3, k P, k P) of patches to (E, 3, P, P), P = patch_size; others are returned as they are.

    The result responds to an image as the given filters do to the image whose pixels are repeated k times a side.

    NOTE: the published SimVG checkpoints have patches of 32 pixels on images of 640, others 16 on 320.
    """
    factor = filters.shape[-1] // patch_size
    if filters.shape[-2:] != (factor * patch_size, factor * patch_size):
        return filters
    return F.avg_pool2d(filters, factor) * factor**2
