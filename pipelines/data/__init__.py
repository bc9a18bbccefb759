"""Records of shards, or image files and texts, in; examples and batches of the network's input and targets out."""
