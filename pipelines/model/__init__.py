"""The network: normalized pixels and token ids in, boxes, masks and the existence of a target out.

It stands on torch, its configuration, and the files that checkpoints are kept in; it knows nothing of data or training.
"""

from pipelines.config.model import IGVGConfig
from pipelines.model.igvg import IGVGModel, IGVGOutput

__all__ = ["IGVGConfig", "IGVGModel", "IGVGOutput"]
