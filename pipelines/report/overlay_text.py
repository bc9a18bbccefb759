"""Text on overlays: a font that has the characters, lines of a given width, and labels in a row or a block."""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from pipelines.report.overlay_colors import Color

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

MAX_LINES = 8
"""Lines of an expression at most; a longer one ends in an ellipsis."""
# Pillow's own font has Latin letters alone. Files of common systems, looked for where the system keeps its fonts.
_FALLBACK_FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "NotoSansCJKjp-Regular.otf", "wqy-zenhei.ttc",
    "wqy-microhei.ttc", "DroidSansFallbackFull.ttf", "NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf", "NotoSansThai-Regular.ttf", "FreeSans.ttf", "unifont.ttf", "Arial Unicode.ttf",
    "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "msyh.ttc", "msgothic.ttc", "malgun.ttf",
    "segoeui.ttf", "arial.ttf", "Nirmala.ttf",
)  # fmt: skip
_LONGEST_TEXT = 4000
# No font has a glyph for it: what is drawn in its place is drawn for every missing character.
_MISSING = "\U0010fffe"


@dataclass(frozen=True, kw_only=True)
class TextBlock:
    """Lines of text in a font."""

    lines: tuple[str, ...]
    font: Font
    right_to_left: bool
    """Whether the text is written from right to left; its lines then stand on the right."""

    @property
    def line_height(self) -> int:
        """Pixels from one line to the next."""
        return measure_text("Ápgjy", self.font)[1] + round(measure_text("x", self.font)[1] * 0.6)

    @property
    def height(self) -> int:
        """Pixels of all lines."""
        return self.line_height * len(self.lines)

    def draw(self, image: Image.Image, box: tuple[int, int, int, int], color: Color) -> None:
        """Draw the lines into a box x0, y0, x1, y1 of an image."""
        draw, left, top, right = ImageDraw.Draw(image), *box[:3]
        for index, line in enumerate(self.lines):
            x = right if self.right_to_left else left
            y = top + index * self.line_height + self.line_height // 2
            draw.text((x, y), line, fill=color, font=self.font, anchor="rm" if self.right_to_left else "lm")


def wrap_text(text: str, size: int, width: int, max_lines: int = MAX_LINES) -> TextBlock:
    """A text as lines of at most `width` pixels, in a font that has its characters.

    Lines break between words, and inside words that are longer than a line. White space and characters that cannot be
    printed become spaces.
    """
    words = "".join(char if char.isprintable() else " " for char in text[:_LONGEST_TEXT]).split()
    font = choose_font("".join(words), size)
    lines: list[str] = []
    line = ""
    for word in words:
        longer = f"{line} {word}" if line else word
        if measure_text(longer, font)[0] <= width:
            line = longer
            continue
        lines.extend([line] if line else [])
        *full, line = _break_word(word, font, width)
        lines.extend(full)
        if len(lines) > max_lines:
            break
    lines.append(line)
    if len(lines) > max_lines or len(text) > _LONGEST_TEXT:
        last = lines[min(max_lines, len(lines)) - 1]
        while last and measure_text(f"{last}…", font)[0] > width:
            last = last[:-1]
        lines = [*lines[: max_lines - 1], f"{last}…"]
    strong = next((kind for char in "".join(words) if (kind := unicodedata.bidirectional(char)) in "LRAL"), "L")
    return TextBlock(lines=tuple(lines), font=font, right_to_left=strong in ("R", "AL"))


def _break_word(word: str, font: Font, width: int) -> list[str]:
    """A word in pieces that are not wider than a line, if a single character is not."""
    pieces = []
    while word and measure_text(word, font)[0] > width:
        low, high = 1, len(word)
        while low < high - 1:
            middle = (low + high) // 2
            low, high = (middle, high) if measure_text(word[:middle], font)[0] <= width else (low, middle)
        pieces.append(word[:low])
        word = word[low:]
    return [*pieces, word]


def measure_text(text: str, font: Font) -> tuple[int, int]:
    """Width and height in pixels of one line."""
    left, top, right, bottom = font.getbbox(text)
    return round(right - left), round(bottom - top)


@functools.lru_cache(maxsize=64)
def choose_font(text: str, size: int) -> Font:
    """Pillow's font; or the first of the system that has more of the text's characters."""
    characters = sorted(set(text) - {" "})
    best, fewest = load_font(None, size), _count_missing(characters, None)
    for name in _FALLBACK_FONTS:
        if not fewest:
            break
        missing = _count_missing(characters, name)
        if missing < fewest:
            best, fewest = load_font(name, size), missing
    return best


@functools.lru_cache(maxsize=64)
def load_font(name: str | None, size: int) -> Font:
    """A font of the system by its file name; None: Pillow's.

    Raises:
        OSError: there is none.
    """
    return ImageFont.load_default(size=size) if name is None else ImageFont.truetype(name, size)


def _count_missing(characters: list[str], name: str | None) -> int:
    if not _has_font(name):
        return len(characters) + 1
    font = load_font(name, 16)
    missing = bytes(font.getmask(_MISSING))
    return sum(bytes(font.getmask(char)) == missing for char in characters)


@functools.lru_cache(maxsize=64)
def _has_font(name: str | None) -> bool:
    """Whether the system has a font; asking for one that it lacks searches all of its folders."""
    try:
        load_font(name, 16)
    except OSError:
        return False
    return True
