"""The metrics of the benchmarks: outcomes of single expressions in, ratios of sums out. NumPy only."""
