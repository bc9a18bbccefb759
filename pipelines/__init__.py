"""Example → batch → output → prediction → score."""
