"""``python -m totoms new``: write a service that runs and passes its tests at once."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

import click

from totoms.cli.parameters import Parsed, examples
from totoms.errors import ConfigurationError
from totoms.scaffold.files import Wanted, files_of

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST: Final = 60
_BACKENDS: Final = ("local", "aws", "gcp", "azure")


def _name(text: str) -> str:
    if _NAME.fullmatch(text) and len(text) <= _LONGEST:
        return text
    better = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LONGEST].strip("-")
    hint = f", such as {better}" if _NAME.fullmatch(better) else ""
    raise ValueError(f"must be lower-case letters and digits with single dashes between them{hint}")


@click.command(
    epilog=examples("python -m totoms new orders", "python -m totoms new orders --backend aws --mongo"),
)
@click.argument("name", type=Parsed(_name))
@click.option(
    "--backend",
    type=click.Choice(_BACKENDS),
    default="local",
    show_default=True,
    help="Where the image will run. On your machine the service runs on the local backend in any case.",
)
@click.option("--mongo", is_flag=True, help="Store the items in MongoDB; the tests need none.")
@click.option("--minimal", is_flag=True, help="Only one module, its test and the settings of the project.")
def new(name: str, backend: str, mongo: bool, minimal: bool) -> None:
    """Write a new service into the folder NAME: typed event, handler, endpoints, tests, Dockerfile, CI workflow.

    It runs and passes its tests at once. A folder that is not empty is left unchanged.
    """
    if mongo and minimal:
        raise click.UsageError("Give --mongo or --minimal, not both.")
    folder = Path(name)
    write(folder, files_of(Wanted(name, backend, mongo, minimal)))
    sys.stdout.write(
        f"Wrote {name}/. Next:\n\n"
        f"  cd {name}\n"
        "  pip install -e '.[dev]'\n"
        "  python -m pytest\n"
        "  python -m totoms run service:configuration --reload\n"
    )


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files into a folder, which is created.

    Args:
        folder: The folder.
        files: From path, relative to the folder, to text.

    Raises:
        ConfigurationError: The folder has anything in it, is a file, or cannot be written.
    """
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise ConfigurationError(f"{folder} is not empty: a new service replaces no file.")
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written: {error.strerror}.") from error
