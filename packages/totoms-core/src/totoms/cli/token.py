"""``python -m totoms token``: print a token for calling a service."""

from __future__ import annotations

import sys
from typing import Final

import click

from totoms.cli.parameters import Parsed, examples
from totoms.controller_config import JWT_KEY_SECRET

_HOUR: Final = 3600
_YEAR: Final = 366 * 24 * _HOUR


def _user(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("must be a name or an address")
    return text


def _claim(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals or not value or not text.isprintable():
        raise ValueError(f"must be NAME=VALUE, not {text!r}")
    return name, value


def _lifetime(text: str) -> int:
    try:
        seconds = int(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= _YEAR:
        raise ValueError(f"must be a number of seconds, 1 to {_YEAR}")
    return seconds


@click.command(
    epilog=examples(
        "python -m totoms token --user me@example.com",
        "python -m totoms token --user me@example.com --claim roles=admin --lifetime 600",
    )
)
@click.option("--user", required=True, type=Parsed(_user), help="The caller: the value of UserContext.email.")
@click.option(
    "--lifetime",
    type=Parsed(_lifetime),
    default=str(_HOUR),
    show_default=True,
    metavar="SECONDS",
    help="Seconds until it expires.",
)
@click.option(
    "--claim",
    "claims",
    type=Parsed(_claim),
    multiple=True,
    metavar="NAME=VALUE",
    help="A further claim, such as roles=admin or scope=posts:write; given several times, a list of the values.",
)
def token(user: str, lifetime: int, claims: tuple[tuple[str, str], ...]) -> None:
    """Print a bearer token for calling a service.

    It is signed with the secret jwt-signing-key of the hyperscaler that HYPERSCALER names (by default local, whose key
    is generated for this machine).
    """
    from totoms.auth.tokens import make_token
    from totoms.secrets.manager import SecretsManager
    from totoms.secrets.trimming import strip_ends

    key = strip_ends(SecretsManager().get_secret(JWT_KEY_SECRET), f"the secret {JWT_KEY_SECRET!r}")
    given: dict[str, list[str]] = {}
    for name, value in claims:
        given.setdefault(name, []).append(value)
    more = {name: values if len(values) > 1 else values[0] for name, values in given.items()}
    sys.stdout.write(make_token(key, user, lifetime, more) + "\n")
