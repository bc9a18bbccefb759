"""Optimization for float32 prediction on a CPU: a trained network in, an inference-only network out."""

from pipelines.model.cpu.optimize import CPUInferenceModel, optimize_for_cpu

__all__ = ["CPUInferenceModel", "optimize_for_cpu"]
