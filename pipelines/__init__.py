"""The stages of generalized visual grounding, from prepared shards to scores.

An example becomes a batch, a batch an output, an output a prediction, a prediction a score. The packages stand on each
other in this order, each only on those that come after it: experiments, stages, report, training, evaluation,
prediction, pretrained, data and model (which do not know each other), runtime, networks, config.
"""
