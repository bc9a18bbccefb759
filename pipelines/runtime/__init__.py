"""The environment of a run: launched processes, their communication, signals, the compute dtype and memory."""
