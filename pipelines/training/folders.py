"""Names of folders that a training keeps in its own until it has finished."""

from __future__ import annotations

STATE_FOLDER = "state"
"""The saved states."""
LAST_GOOD_FOLDER = "last-good"
"""After a divergence, the checkpoint folder of the last saved weights."""
