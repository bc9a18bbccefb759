"""From records of shards, or image files and texts, to examples, and from examples to batches of inputs and targets."""
