"""Results for people to look at: images and predictions in, overlays out."""
