"""Batches in; raw outputs, post-processed results and prediction files out, also as COCO's files."""
