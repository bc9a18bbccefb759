"""Each benchmark's metrics: outcomes of single expressions in, ratios of sums out. NumPy only."""
