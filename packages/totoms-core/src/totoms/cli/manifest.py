"""``totoms manifest``: print the declaration of a service as JSON."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import json
import sys
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totoms.errors import ConfigurationError

if TYPE_CHECKING:
    from totoms.declaration.service import TotoMicroserviceConfiguration


def add_command(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: What ``add_subparsers`` returned.
    """
    parser = commands.add_parser(
        "manifest",
        help="print the declaration of a service as JSON",
        description="Print the declaration of a service as JSON: endpoints with schemas, events, topics, handlers "
        "and resources. It needs no hyperscaler and reads no secret.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    add_declaration(what)
    what.add_argument("--schema", action="store_true", help="print the JSON Schema of the manifest")
    parser.set_defaults(run=_manifest)


def add_declaration(parser: Any, more: str = "") -> None:
    """Add the argument ``configuration`` for `load_configuration`, which may be left out.

    Args:
        parser: The parser, or a group of it.
        more: What it is for.
    """
    text = "where the TotoMicroserviceConfiguration is, or a function that returns it; such as service:configuration"
    parser.add_argument("configuration", nargs="?", metavar="MODULE:NAME", help=f"{text}; {more}" if more else text)


def _manifest(parsed: argparse.Namespace) -> None:
    from totoms.manifest import Manifest, manifest_of  # imports FastAPI's OpenAPI

    if parsed.schema:
        found = Manifest.model_json_schema()
    else:
        with contextlib.redirect_stdout(sys.stderr):  # what the service's modules print is not part of the manifest
            found = manifest_of(load_configuration(parsed.configuration)).model_dump(mode="json")
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def load_quietly(place: str) -> TotoMicroserviceConfiguration:
    """Import a declaration as `load_configuration` does; what its modules print goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        return load_configuration(place)


def load_configuration(place: str) -> TotoMicroserviceConfiguration:
    """Import a declaration.

    Args:
        place: Such as ``service:configuration``: a module, looked for in the working directory as well, and the name of
            a configuration or of a function without arguments that returns one.

    Raises:
        ConfigurationError: There is no configuration, or importing it failed.
    """
    module_name, separator, name = place.partition(":")
    from totoms.declaration.service import TotoMicroserviceConfiguration  # imports FastAPI

    if not module_name or not separator or not name:
        raise ConfigurationError(f"{place!r} must have the form MODULE:NAME, such as service:configuration.")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = reduce(getattr, name.split("."), importlib.import_module(module_name))
        if callable(found) and not isinstance(found, TotoMicroserviceConfiguration):
            found = found()
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:  # otherwise the command would end as if it had succeeded
        raise ConfigurationError(f"{place} cannot be loaded: {type(error).__name__}: {error}") from error
    if inspect.iscoroutine(found):
        found.close()
    if not isinstance(found, TotoMicroserviceConfiguration):
        raise ConfigurationError(f"{place} is a {type(found).__name__}, not a TotoMicroserviceConfiguration.")
    return found
