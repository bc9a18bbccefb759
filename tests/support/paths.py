"""Where the repository is, and the reference data beside it that not everybody has."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
GOLDENS = SHARED / "goldens"
REAL = SHARED / "real"
