"""A small drawing board: shapes, text and arrows as an SVG that reads on light and dark pages.

Coordinates are pixels from the top left. Every drawing has a background of its own, which follows the reader's color
scheme. Colors are those of Okabe and Ito, and never the only difference.
"""

from __future__ import annotations

from html import escape

STYLE = """
svg { --back: #ffffff; --ink: #1f2328; --soft: #59636e; --line: #8c959f; --fill: #f3f5f7; --predicted: #0072b2; }
@media (prefers-color-scheme: dark) {
  svg { --back: #1c1f24; --ink: #e8eaed; --soft: #a7afb8; --line: #767f88; --fill: #2a2e35; --predicted: #56b4e9; }
}
text { font: 14px system-ui, sans-serif; fill: var(--ink); }
.back { fill: var(--back); stroke: var(--line); }
.soft { fill: var(--soft); font-size: 13px; }
.bold { font-weight: 600; }
.code { font: 12px ui-monospace, monospace; fill: var(--soft); }
.box { fill: var(--fill); stroke: var(--line); }
.data { fill: none; stroke: var(--line); stroke-dasharray: 2 2; }
.frame { fill: none; stroke: var(--line); }
.arrow { fill: none; stroke: var(--ink); stroke-width: 1.3; marker-end: url(#head); }
.head { fill: var(--ink); }
.target { fill: #e69f00; fill-opacity: 0.35; stroke: #e69f00; stroke-width: 2; }
.predicted { fill: #56b4e9; fill-opacity: 0.3; stroke: var(--predicted); stroke-width: 2; stroke-dasharray: 6 3; }
.outline-target { fill: none; stroke: #e69f00; stroke-width: 2.5; }
.outline-predicted { fill: none; stroke: var(--predicted); stroke-width: 2; stroke-dasharray: 6 3; }
.match { stroke: #009e73; stroke-width: 2; }
.point { fill: #d55e00; }
"""


class Drawing:
    """Elements in the order in which they are drawn."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.elements: list[str] = []

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> None:
        """One line of text; (x, y) is on its base line."""
        self._add("text", kind, f">{escape(text)}</text>", x=x, y=y, **{"text-anchor": anchor})

    def rect(self, x: float, y: float, width: float, height: float, kind: str, radius: float = 4) -> None:
        """A rectangle by its top left corner."""
        self._add("rect", kind, x=x, y=y, width=width, height=height, rx=radius)

    def ellipse(self, x: float, y: float, radius_x: float, radius_y: float, kind: str) -> None:
        """An ellipse by its center."""
        self._add("ellipse", kind, cx=x, cy=y, rx=radius_x, ry=radius_y)

    def line(self, x0: float, y0: float, x1: float, y1: float, kind: str) -> None:
        """A straight line."""
        self._add("line", kind, x1=x0, y1=y0, x2=x1, y2=y1)

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through points, with a head at the last."""
        self._add("polyline", "arrow", points=" ".join(f"{x:g},{y:g}" for x, y in points))

    def node(self, x: float, y: float, width: float, lines: tuple[str, ...], kind: str = "box") -> None:
        """A box around centered lines of text, the first of them bold; it is 22 pixels high for each, and 10 more."""
        self.rect(x, y, width, 22 * len(lines) + 10, kind)
        for row, line in enumerate(lines):
            self.text(x + width / 2, y + 21 + 22 * row, line, "bold" if row == 0 else "soft", "middle")

    def _add(self, name: str, kind: str, end: str = "/>", **attributes: object) -> None:
        values = {key: value for key, value in {"class": kind, **attributes}.items() if value != ""}
        texts = [
            f'{key}="{value:g}"' if isinstance(value, float) else f'{key}="{value}"' for key, value in values.items()
        ]
        self.elements.append(f"<{name} {' '.join(texts)}{end}")

    def render(self) -> str:
        """The file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="img">'
        )
        marker = (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path class="head" d="M0 0 8 4 0 8z"/></marker></defs>'
        )
        back = f'<rect class="back" x="0.5" y="0.5" width="{self.width - 1}" height="{self.height - 1}" rx="6"/>'
        title = f"<title>{escape(self.title)}</title>"
        return "\n".join([head, title, f"<style>{STYLE}</style>", marker, back, *self.elements, "</svg>", ""])
