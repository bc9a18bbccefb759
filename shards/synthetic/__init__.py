"""The embedded data set: images of colored shapes with expressions that are true by construction.

It is written in the published layouts of gRefCOCO, Ref-ZOM, R-RefCOCO and RefCOCO, so that it enters through the same
readers as real data: scene (what is drawn) → expressions (what is said about it) → published files.
"""
