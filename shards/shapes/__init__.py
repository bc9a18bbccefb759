"""The embedded data set: pictures of coloured shapes with phrases that are true by construction.

It is written in the published layouts of gRefCOCO, Ref-ZOM, R-RefCOCO and RefCOCO, so that it enters through the same
readers as real data: scene (what is drawn) → phrases (what is said about it) → layouts (how that is published).
"""

from shards.shapes.layouts import PICTURES_FOLDER, write_published, write_refcoco

__all__ = ["PICTURES_FOLDER", "write_published", "write_refcoco"]
