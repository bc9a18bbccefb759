"""Names and values of strangers as one line that cannot move a terminal's cursor."""

from __future__ import annotations


def escape_control(text: str) -> str:
    """A text whose control characters and line breaks are escapes; bytes that are no UTF-8 stay as Python has them."""
    return "".join(
        character if character.isprintable() or "\udc80" <= character <= "\udcff" else _escape(character)
        for character in text
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
