"""Predictions and shards in, outcomes of single expressions and metrics out. Nothing here imports torch."""
