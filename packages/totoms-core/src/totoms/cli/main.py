"""``python -m totoms``: the commands, each in a module of its own, which is imported when the command runs.

An error is one line on standard error. The exit status is 2 for wrong arguments or settings, and 1 for an error of a
backend or where the answer of a command is no.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

import click

from totoms.cli.output import log_as_notes
from totoms.errors import BackendError, TotoError
from totoms.excepthook import EXIT_STATUS
from totoms.logging.describe import error_location, error_text, printable

PROGRAM: Final = "python -m totoms"
COMPLETION_VARIABLE: Final = "_TOTOMS_COMPLETE"
"""Where the scripts that complete commands in a shell ask for completions."""
_OTHER_DISTRIBUTION: Final = "totoms-cli"
"""An unrelated distribution, whose command is called ``totoms`` as well."""


class _Command(NamedTuple):
    place: str
    help: str


COMMANDS: Final = {
    "new": _Command("totoms.cli.new:new", "write a new service, with tests, Dockerfile and CI workflow"),
    "run": _Command("totoms.cli.run:run", "serve a service on this machine, with reload if wanted"),
    "plugins": _Command("totoms.cli.plugins:plugins", "list the installed hyperscaler plugins"),
    "check": _Command("totoms.cli.check:check", "find what is wrong with a declaration, without starting it"),
    "token": _Command("totoms.cli.token:token", "print a token for calling a service"),
    "manifest": _Command("totoms.cli.manifest:manifest", "print the declaration of a service as JSON"),
    "contract": _Command("totoms.cli.contract:contract", "write OpenAPI and AsyncAPI documents, and compare them"),
    "mcp": _Command("totoms.cli.mcp:mcp", "let a coding agent read what the console knows, over stdio"),
    "completion": _Command(
        "totoms.cli.completion:completion", "print the script that completes commands in your shell"
    ),
    "dlq": _Command(
        "totoms.cli.dead_letters:dlq", "count, list, group, show, replay, purge and export dead letters; send a message"
    ),
}
"""Where each command is. The help texts are here so that ``--help`` imports no command."""

_WITH_A_LOG: Final = ("run",)
"""Commands that log as a service does. Other commands print warnings as notes."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].place.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from importlib_metadata import version

    sys.stdout.write(f"totoms {version('totoms')}\n")
    ctx.exit()


def _remember_debug(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    ctx.ensure_object(dict)["debug"] = wanted


@click.command(
    cls=_Commands,
    no_args_is_help=False,
    epilog=f"`{PROGRAM} COMMAND --help` shows what a command does, with examples.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version of totoms and exit.",
)
@click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember_debug,
    help="Print the traceback of an error.",
)
@click.pass_context
def program(ctx: click.Context) -> None:
    """Tools for services written with totoms."""
    if ctx.invoked_subcommand not in _WITH_A_LOG:
        ctx.with_resource(log_as_notes())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The arguments without the program's name; by default the process's.

    Returns:
        The exit status.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if COMPLETION_VARIABLE in os.environ:
        program.main(given, prog_name="totoms", complete_var=COMPLETION_VARIABLE)
    _warn_of_other_command()
    state: dict[str, Any] = {}
    try:
        # Not `program.main`: it ends the process itself if the reader of the output has ended.
        with program.make_context(PROGRAM, given, obj=state) as context:
            program.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as wanted:
        return wanted.exit_code
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else PROGRAM
        return _fail(f"{error.format_message().rstrip('.')} (try: {path} --help)")
    except click.ClickException as error:
        return _fail(error.format_message())
    except BackendError as error:
        return _fail(error.message, 1, error, state)
    except TotoError as error:
        return _fail(error.message, EXIT_STATUS, error, state)
    except BrokenPipeError:
        # The reader, such as `head`, has ended. The flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, click.Abort):
        return 130
    except Exception as error:
        return _fail(f"unexpected {error_location(error)}: {error_text(error)}", EXIT_STATUS, error, state)
    return 0


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
        f"{_OTHER_DISTRIBUTION} and install totoms again.\n"
    )


def _fail(
    message: str, status: int = EXIT_STATUS, error: Exception | None = None, state: dict[str, Any] | None = None
) -> int:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()  # print the results before the error
    if error is not None and (state or {}).get("debug"):
        sys.stderr.write("".join(traceback.format_exception(error)))
    sys.stderr.write(f"totoms: {printable(message)}\n")
    return status
