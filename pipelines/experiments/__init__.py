"""Several stages in a row: an experiment file, an ablation or the demo in; their artifacts and scores out."""
