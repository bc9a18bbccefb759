"""Several stages in a row: an experiment file, an ablation or the demo in, the artifacts of its stages out."""
