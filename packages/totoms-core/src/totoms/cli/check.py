"""``python -m totoms check``: find what is wrong with a declaration, without starting the service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from totoms.cli.declarations import load_quietly
from totoms.cli.output import counted, print_findings
from totoms.cli.parameters import PLACE_HELP, TEXT, declaration, examples
from totoms.environment import TotoEnvironment
from totoms.errors import ConfigurationError
from totoms.logging.describe import printable

if TYPE_CHECKING:
    from totoms.checks.findings import Finding
    from totoms.declaration.service import TotoMicroserviceConfiguration


@click.command(
    help="Find everything that is wrong with a declaration, without starting the service.\n\n"
    "It says what the declaration lacks, what the backend cannot do, and which secrets, topics and buckets are "
    "missing. It reads secrets and prints no value. The exit status is 1 if there is a problem.\n\n" + PLACE_HELP,
    epilog=examples(
        "python -m totoms check service:configuration",
        "python -m totoms check service:configuration --backend aws --offline",
    ),
)
@declaration()
@click.option("--backend", type=TEXT, metavar="NAME", help="The backend; by default the declaration's, or HYPERSCALER.")
@click.option("--offline", is_flag=True, help="Do not look for secrets, topics and buckets.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(configuration: str, backend: str | None, offline: bool, as_json: bool) -> None:
    """Find what is wrong."""
    found = _findings(load_quietly(configuration), backend, offline=offline)
    problems = [one for one in found if one.level == "problem"]
    summary = f"{counted(len(problems), 'problem')}." if problems else "No problems found."
    print_findings(found, lambda one: f"{one.level:8}{one.about}: {printable(one.text)}", summary, as_json=as_json)
    if problems:
        click.get_current_context().exit(1)


def _findings(configuration: TotoMicroserviceConfiguration, backend: str | None, *, offline: bool) -> list[Finding]:
    from totoms.checks.backend import backend_findings
    from totoms.checks.findings import Finding
    from totoms.checks.resources import resource_findings
    from totoms.manifest import manifest_of

    found: list[Finding] = []
    closed = False
    try:
        # It builds the app, so it finds what is wrong with routes, their protection and handlers.
        manifest = manifest_of(configuration)
    except ConfigurationError as error:
        found.append(Finding("problem", "declaration", error.message))
    else:
        closed = any(not endpoint.public for endpoint in manifest.endpoints)
    name = backend or _name_of(configuration)
    found += backend_findings(configuration, name)
    try:
        environment = _environment(configuration, backend)
    except ConfigurationError as error:
        return [*found, Finding("problem", "backend", error.message)]
    if not offline:
        found += asyncio.run(resource_findings(configuration, environment, closed=closed))
    return found


def _name_of(configuration: TotoMicroserviceConfiguration) -> str:
    if configuration.environment is not None:
        return configuration.environment.hyperscaler
    return TotoEnvironment.name_of_variable()


def _environment(configuration: TotoMicroserviceConfiguration, backend: str | None) -> TotoEnvironment:
    if backend is not None:
        return TotoEnvironment(backend)
    return configuration.environment or TotoEnvironment.from_variables()
