"""An optimization pass for CPUs, apart from the network: a model in, an inference-only model out."""
