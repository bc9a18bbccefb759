"""Published checkpoints in, the configuration and the tensors of this network out."""
