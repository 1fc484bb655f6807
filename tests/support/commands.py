"""Command lines of ``python -m totoms``, parsed without running them."""

from __future__ import annotations

import shlex

import click

from totoms.cli.main import program


def parse(line: str) -> click.Context:
    """Parse what follows ``python -m totoms`` as a shell would; raise `click.UsageError` if it is wrong."""
    words = shlex.split(line, comments=True)
    command: click.Command = program
    context = click.Context(program, info_name="python -m totoms")
    while isinstance(command, click.Group):
        context = command.make_context(command.name, words, parent=context)
        words = [*context._protected_args, *context.args]
        name, found, words = command.resolve_command(context, words)
        if found is None:
            raise click.UsageError(f"no command {name}")
        command = found
    return command.make_context(command.name, words, parent=context)
