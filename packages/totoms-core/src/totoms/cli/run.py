"""``python -m totoms run``: serve a declared service on this machine, with reload or several workers if wanted."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import click

from totoms.cli.banner import announce
from totoms.cli.consoles import OpenedConsole, Wanted, keep_address
from totoms.cli.declarations import load_configuration
from totoms.cli.parameters import PLACE_HELP, Parsed, declaration, examples
from totoms.errors import ConfigurationError

if TYPE_CHECKING:
    from totoms.declaration.service import TotoMicroserviceConfiguration


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise ValueError("must be a number from 0 to 65535")
    return int(text)


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise ValueError("must be a number from 1 to 1000")
    return int(text)


@click.command(
    epilog=examples(
        "python -m totoms run service:configuration --reload",
        "python -m totoms run service:configuration --port 9000 --workers 4",
    ),
    help="Serve a service until Ctrl-C or SIGTERM; then it drains and the exit status is 0.\n\n"
    "On a terminal it prints its addresses and, on the local backend, a token and a command to try.\n\n" + PLACE_HELP,
)
@declaration()
@click.option("--port", type=Parsed(_port), help="The port; by default PORT, else 8080. 0 takes a free one.")
@click.option("--host", help="The address; by default 127.0.0.1 on the local backend, else all addresses.")
@click.option("--reload", is_flag=True, help="Start again when a .py file or .env below the working directory changes.")
@click.option("--workers", type=Parsed(_workers), default="1", show_default=True, metavar="N", help="Processes.")
@click.option("--console", is_flag=True, help="Show what happens in a browser, on this machine only.")
@click.option("--console-port", type=Parsed(_port), help="The console's port; by default 8090, or the next free one.")
@click.option("--write", is_flag=True, help="Let the console change something: replay, publish, try calls.")
def run(
    configuration: str,
    port: int | None,
    host: str | None,
    reload: bool,
    workers: int,
    console: bool,
    console_port: int | None,
    write: bool,
) -> None:
    """Serve a service."""
    if workers > 1 and (reload or console):
        raise click.UsageError(f"Give --workers or {'--reload' if reload else '--console'}, not both.")
    if (write or console_port is not None) and not console:
        raise click.UsageError("--write and --console-port are for --console.")
    wanted = Wanted(console_port, write) if console else None
    if reload:
        from totoms.cli.reload import run_again

        if wanted is not None:
            keep_address()
        run_again(_arguments(configuration, port, host, wanted))
    elif workers > 1:
        from totoms.cli.workers import run_workers

        run_workers(configuration, port, host, workers)
    else:
        end_with_the_reloader()
        serve(load_configuration(configuration), port, host, wanted)


def _arguments(configuration: str, port: int | None, host: str | None, console: Wanted | None) -> list[str]:
    options = {"--port": port, "--host": host, "--console-port": console.port if console else None}
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    given += ["--console"] if console else []
    given += ["--write"] if console and console.write else []
    return ["run", *given, "--", configuration]


def serve(
    configuration: TotoMicroserviceConfiguration, port: int | None, host: str | None, console: Wanted | None = None
) -> None:
    """Serve one service in this process, until a signal ends it.

    Raises:
        ConfigurationError: The service cannot start as configured, or the port is in use.
    """
    from totoms.service import TotoMicroservice
    from totoms.serving import run_loop

    opened = OpenedConsole(console, configuration.service_name)

    async def serving() -> None:
        microservice = await TotoMicroservice.init(configuration)
        announcing = asyncio.create_task(announce(microservice, opened))
        try:
            await microservice.start(port, host)
        finally:
            announcing.cancel()
            opened.close()

    run_loop(serving())


def end_with_the_reloader() -> None:
    """Drain this process when the reloading process ends, even if it is killed."""
    from totoms.cli.reload import LIFELINE_VARIABLE, end_with

    descriptor: Any = os.environ.pop(LIFELINE_VARIABLE, None)
    if descriptor is None:
        return
    try:
        end_with(int(descriptor))
    except ValueError:
        raise ConfigurationError(f"{LIFELINE_VARIABLE} is set by --reload only.") from None
