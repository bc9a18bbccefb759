"""Options that take several values after one name, as in `--image A.jpg B.jpg FOLDER`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


def repeat_option(words: Sequence[str], options: Collection[str]) -> list[str]:
    """The words of a command line with the option's name before each of its values.

    Values end at the next word that begins with a dash. A value that does so itself is written `--option=-value`.
    """
    repeated: list[str] = []
    option, follows = "", False
    for word in words:
        if word.startswith("-") and word != "-" and not follows:
            name, equals, _ = word.partition("=")
            option = name if name in options else ""
            # The word after the name is its first value, also if it begins with a dash.
            follows = bool(option) and not equals
            repeated.append(word)
            continue
        repeated.extend([word] if follows or not option else [option, word])
        follows = False
    return repeated


class VariadicCommand(TyperCommand):
    """A command whose repeatable options take several values after one name; it has no arguments."""

    variadic: tuple[str, ...] = ()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of the command line."""
        return super().parse_args(ctx, repeat_option(args, self.variadic))
