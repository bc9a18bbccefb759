"""Images of shapes as files, for tests that send or open them."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw


def draw_shapes(width: int = 240, height: int = 160, kind: str = "png") -> bytes:
    """A red square on the left and a blue circle on the right, as a file's bytes."""
    image = Image.new("RGB", (width, height), "white")
    drawing = ImageDraw.Draw(image)
    drawing.rectangle((width * 0.08, height * 0.12, width * 0.33, height * 0.5), fill="red")
    drawing.ellipse((width * 0.5, height * 0.37, width * 0.83, height * 0.87), fill="blue")
    stream = io.BytesIO()
    image.save(stream, format=kind)
    return stream.getvalue()
