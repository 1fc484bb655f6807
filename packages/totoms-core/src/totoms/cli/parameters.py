"""Parameters of commands: values that are checked when they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:  # older versions of click have no parameters for their types
    _Type = click.ParamType
_F = TypeVar("_F", bound=Callable[..., Any])

PLACE = "MODULE:NAME"
"""How the help refers to a declaration."""
PLACE_HELP = (
    "MODULE:NAME is a TotoMicroserviceConfiguration or a function that returns one, such as service:configuration."
)


class Parsed(_Type):
    """The type of a parameter that a function checks and converts.

    Args:
        parse: Returns the value of a text; raises ValueError with what the text must be.
    """

    name = "text"

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value of a text."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(utf8(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def utf8(given: str) -> str:
    """Return an argument of the command line. One that is not UTF-8 is refused: backends cannot encode it."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8") from None
    return given


TEXT = Parsed(utf8)
"""A text that a backend can encode."""


def examples(*commands: str) -> str:
    """Return examples for the end of a command's help, one on each line."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


def declaration(*, required: bool = True) -> Callable[[_F], _F]:
    """Add the argument ``configuration``: where a declaration is."""
    return click.argument("configuration", type=TEXT, metavar=PLACE, required=required)
