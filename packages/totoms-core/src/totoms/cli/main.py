"""The ``totoms`` command: list plugins, create tokens, print manifests, manage dead letters.

An error is one line on standard error, with the exit status 1 for an error of a backend, and 2 for wrong arguments or
settings.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from totoms.cli import dead_letters as dlq
from totoms.cli import manifest
from totoms.cli.output import log_as_notes
from totoms.controller_config import JWT_KEY_SECRET
from totoms.errors import BackendError, PluginError, TotoError
from totoms.excepthook import EXIT_STATUS
from totoms.logging.describe import error_location, error_text, printable
from totoms.plugins.discovery import CORE, installed
from totoms.plugins.loader import CAPABILITIES, load

_HOUR: Final = 3600
_OTHER_DISTRIBUTION: Final = "totoms-cli"
"""An unrelated distribution, whose command is called ``totoms`` as well."""
_YEAR: Final = 366 * 24 * _HOUR


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The arguments without the program's name; by default the process's.

    Returns:
        The exit status.
    """
    _warn_of_other_command()
    parsed = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], None] = parsed.run
    try:
        with log_as_notes():
            run(parsed)
        sys.stdout.flush()
    except BackendError as error:
        return _fail(error.message, 1)
    except TotoError as error:
        return _fail(error.message)
    except BrokenPipeError:
        # The reader, such as `head`, has ended. The flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return _fail(f"unexpected {error_location(error)}: {error_text(error)}")
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_fail(f"{message} (try: {self.prog} --help)"))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="totoms", description="Tools for services written with totoms.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version of totoms and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    plugins = commands.add_parser(
        "plugins",
        help="list the installed hyperscaler plugins",
        description="List the installed hyperscaler plugins with their distributions and capabilities. Each plugin is "
        "imported; one that cannot be used is listed with the reason, and the exit status is still 0.",
    )
    plugins.add_argument("--json", action="store_true", help="print JSON")
    plugins.set_defaults(run=_plugins)

    token = commands.add_parser(
        "token",
        help="print a token for calling a service",
        description="Print a bearer token for calling a service, signed with the secret jwt-signing-key of the "
        "hyperscaler that HYPERSCALER names (by default local, whose key is generated for this machine).",
    )
    token.add_argument("--user", required=True, type=_user, help="the caller: the value of UserContext.email")
    token.add_argument(
        "--lifetime", type=_lifetime, default=_HOUR, metavar="SECONDS", help="seconds until it expires (default: 3600)"
    )
    token.add_argument(
        "--claim",
        action="append",
        default=[],
        type=_claim,
        metavar="NAME=VALUE",
        help="a further claim, such as roles=admin or scope=posts:write; given several times, a list of the values",
    )
    token.set_defaults(run=_token)

    manifest.add_command(commands)
    dlq.add_command(commands)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib_metadata import version

        sys.stdout.write(f"{CORE} {version(CORE)}\n")
        parser.exit()


def _user(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError("must be a name or an address")
    return text


def _claim(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals or not value or not text.isprintable():
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, not {text!r}")
    return name, value


def _lifetime(text: str) -> int:
    try:
        seconds = int(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= _YEAR:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, 1 to {_YEAR}")
    return seconds


def _plugins(parsed: argparse.Namespace) -> None:
    found = [_describe(plugin.name, plugin.distribution, plugin.version) for plugin in installed()]
    if parsed.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    rows = [("NAME", "DISTRIBUTION", "VERSION", "CAPABILITIES")]
    for plugin in found:
        can = ", ".join(plugin["capabilities"])
        if plugin["messaging"]:
            can += f" ({', '.join(plugin['messaging'])})"
        rows.append((plugin["name"], plugin["distribution"], plugin["version"], plugin["error"] or can))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        sys.stdout.write("  ".join([*cells, row[3]]) + "\n")


def _describe(name: str, distribution: str, version: str) -> dict[str, Any]:
    capabilities: list[str] = []
    messaging: list[str] = []
    problem = None
    try:
        backend = load(name)
        capabilities = [capability for capability in CAPABILITIES if getattr(backend, capability) is not None]
        if backend.message_bus is not None:
            messaging = sorted(backend.message_bus.capabilities)
    except PluginError as error:
        problem = f"cannot be used: {printable(error.message)}"
    return {
        "name": name,
        "distribution": distribution,
        "version": version,
        "capabilities": capabilities,
        "messaging": messaging,
        "error": problem,
    }


def _token(parsed: argparse.Namespace) -> None:
    from totoms.auth.tokens import make_token
    from totoms.secrets.manager import SecretsManager
    from totoms.secrets.trimming import strip_ends

    key = strip_ends(SecretsManager().get_secret(JWT_KEY_SECRET), f"the secret {JWT_KEY_SECRET!r}")
    given: dict[str, list[str]] = {}
    for name, value in parsed.claim:
        given.setdefault(name, []).append(value)
    claims = {name: values if len(values) > 1 else values[0] for name, values in given.items()}
    sys.stdout.write(make_token(key, parsed.user, parsed.lifetime, claims) + "\n")


def _warn_of_other_command() -> None:
    """Warn if the distribution ``totoms-cli``, whose command has the same name, is installed too.

    pip lets the distribution installed last overwrite the command, and removes it when either is uninstalled.
    """
    from importlib_metadata import PackageNotFoundError, version

    try:
        found = version(_OTHER_DISTRIBUTION)
    except PackageNotFoundError:
        return
    sys.stderr.write(
        f"totoms: warning: {_OTHER_DISTRIBUTION} {found} is installed too, and its command is called 'totoms' as well. "
        "A shell runs the one installed last, and uninstalling either removes it: run 'python -m totoms', or uninstall "
        f"{_OTHER_DISTRIBUTION} and install {CORE} again.\n"
    )


def _fail(message: str, status: int = EXIT_STATUS) -> int:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()  # print the results before the error
    sys.stderr.write(f"totoms: {printable(message)}\n")
    return status
