"""Batches in; raw outputs, post-processed results and prediction files out, also those of COCO's tools."""
