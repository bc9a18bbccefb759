"""igvg's network in Hugging Face transformers: what its Auto classes and pipelines load from a checkpoint folder."""
