"""``python -m totoms manifest``: print the declaration of a service as JSON."""

from __future__ import annotations

import json
import sys

import click

from totoms.cli.declarations import load_quietly
from totoms.cli.parameters import PLACE_HELP, declaration, examples


@click.command(epilog=examples("python -m totoms manifest service:configuration", "python -m totoms manifest --schema"))
@declaration(required=False)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the manifest.")
def manifest(configuration: str | None, schema: bool) -> None:
    """Print the declaration of a service as JSON: endpoints with schemas, events, topics, handlers and resources.

    It needs no hyperscaler and reads no secret.
    """
    if bool(configuration) == schema:
        raise click.UsageError(
            "Give MODULE:NAME or --schema." if not schema else "Give MODULE:NAME or --schema, not both."
        )
    from totoms.manifest import Manifest, manifest_of  # imports FastAPI's OpenAPI

    if configuration is None:
        found = Manifest.model_json_schema()
    else:
        found = load_quietly(configuration, manifest_of).model_dump(mode="json")
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


manifest.help = f"{manifest.help}\n\n{PLACE_HELP}"
