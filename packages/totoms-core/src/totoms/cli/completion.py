"""``python -m totoms completion``: the script with which a shell completes the command ``totoms``."""

from __future__ import annotations

import sys

import click
from click.shell_completion import get_completion_class

from totoms.cli.parameters import examples


@click.command(
    epilog=examples("python -m totoms completion bash > ~/.local/share/bash-completion/completions/totoms"),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script with which a shell completes commands, options and their values."""
    from totoms.cli.main import COMPLETION_VARIABLE, program

    found = get_completion_class(shell)
    assert found is not None
    script = found(program, {}, "totoms", COMPLETION_VARIABLE)
    # `source` asks bash for its version first, and warns where there is no bash.
    sys.stdout.write(script.source_template % script.source_vars() + "\n")
