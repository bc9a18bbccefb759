"""Predictions and shards in; outcomes of single expressions, and metrics over them, out. Loads no torch."""
