"""Settings: TOML files and `--set KEY=VALUE` in, frozen and checked dataclasses out, one for each stage.

Nothing here loads torch, so that a stage whose work is done ends at once.
"""
