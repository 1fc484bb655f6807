"""``python -m totoms contract``: write the contract of a service, and compare two contracts."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from totoms.cli.declarations import load_quietly
from totoms.cli.output import counted, print_findings
from totoms.cli.parameters import PLACE_HELP, TEXT, examples
from totoms.errors import ConfigurationError

_WRITE = "write"


class _Group(click.Group):
    """A group whose default command is `write`: ``contract service:configuration -o contract``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [_WRITE, *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_Group,
    no_args_is_help=False,
    epilog=examples(
        "python -m totoms contract service:configuration -o contract",
        "python -m totoms contract diff contract new-contract",
    ),
)
def contract() -> None:
    """Write the contract of a service as OpenAPI and AsyncAPI documents, and compare two contracts.

    `write` is the default command.
    """


@contract.command(
    _WRITE,
    help="Write openapi.json, asyncapi.json and index.html into a folder.\n\n"
    "The same declaration gives the same bytes. " + PLACE_HELP,
)
@click.argument("configuration", type=TEXT, metavar="MODULE:NAME")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="The folder; it is created. Only these three files are replaced.",
)
def _write(configuration: str, output: Path) -> None:
    from totoms.contracts.documents import documents_of
    from totoms.manifest import manifest_of

    documents = documents_of(load_quietly(configuration, manifest_of))
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in documents.items():
            (output / name).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written: {error.strerror}.") from error
    sys.stdout.write(f"Wrote {', '.join(documents)} to {output}.\n")


@contract.command("diff")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _diff(old: Path, new: Path, as_json: bool) -> None:
    """Compare two contracts, the folders OLD and NEW. The exit status is 1 if there is a breaking change."""
    from totoms.contracts.diff import changes_between

    changes = changes_between(old, new)
    breaking = [change for change in changes if change.breaks]
    summary = f"{counted(len(breaking), 'breaking change')}." if breaking else "Nothing breaks."
    print_findings(
        changes, lambda one: f"{'BREAKS' if one.breaks else 'note  '}  {one.whom}: {one.text}", summary, as_json=as_json
    )
    if breaking:
        click.get_current_context().exit(1)
