"""Colors of instances: Okabe and Ito's palette, which color-blind readers tell apart, and readable text on them."""

from __future__ import annotations

Color = tuple[int, int, int]

OKABE_ITO: tuple[Color, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0), (0, 114, 178),
)  # fmt: skip
"""Orange, sky blue, bluish green, reddish purple, yellow, vermilion, blue; without black."""
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
# Colors after the first seven are these shares of white or black; numbers tell apart what colors do not.
_SHADES = ((WHITE, 0.0), (WHITE, 0.55), (BLACK, 0.45), (WHITE, 0.3), (BLACK, 0.25))


def pick_colors(count: int) -> list[Color]:
    """The RGB color of each instance; lighter and darker ones after the first seven, repeated after 35."""
    colors = []
    for index in range(count):
        target, share = _SHADES[index // len(OKABE_ITO) % len(_SHADES)]
        color = OKABE_ITO[index % len(OKABE_ITO)]
        red, green, blue = (round((1 - share) * own + share * other) for own, other in zip(color, target, strict=True))
        colors.append((red, green, blue))
    return colors


def pick_text_color(background: Color) -> Color:
    """Black or white, whichever has the higher contrast (WCAG 2.2) on a background: at least 4.5."""
    return max((BLACK, WHITE), key=lambda color: contrast_ratio(color, background))


def contrast_ratio(first: Color, second: Color) -> float:
    """The contrast ratio of two colors, from 1 to 21 (WCAG 2.2)."""
    darker, lighter = sorted((_luminance(first), _luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: Color) -> float:
    red, green, blue = (
        value / 12.92 if (value := channel / 255) <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for channel in color
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
