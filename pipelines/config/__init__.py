"""From TOML files and `--set KEY=VALUE` to frozen, checked dataclasses, one per stage.

Nothing here loads torch, so that a stage whose work is done ends at once.
"""
