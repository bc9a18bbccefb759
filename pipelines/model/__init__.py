"""The network: normalized pixels and token ids in; boxes, masks and the existence of a target out.

It depends on torch, its configuration and the checkpoint files; it knows nothing of data or training.
"""

from pipelines.config.model import IGVGConfig
from pipelines.model.igvg import IGVGModel, IGVGOutput

__all__ = ["IGVGConfig", "IGVGModel", "IGVGOutput"]
