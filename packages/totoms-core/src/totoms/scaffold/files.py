"""The files of a new service, from templates."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template
from typing import Final

from totoms.environment import DEFAULT_HYPERSCALER

_SUFFIX: Final = ".tmpl"
_MONGO_URL: Final = "MONGO_URL=mongodb://127.0.0.1:27017"
_MONGO_SERVICE: Final = """
  mongo:
    image: mongo:8
"""
_DEPLOYING: Final = """

| File | What it is |
|---|---|
| `service.py` | endpoints, a handler, and the declaration |
| `events.py` | what the service publishes |
| `tests/` | the service in memory |
| `contract/` | what others rely on; write it with `python -m totoms contract service:configuration -o contract` |
| `Dockerfile`, `compose.yaml` | the image, and how to try it: `docker compose up --build` |
| `.github/workflows/ci.yml` | tests, `python -m totoms check`, and a look at what a change would break |
"""


@dataclass(frozen=True)
class Wanted:
    """A new service.

    Attributes:
        name: The name of the service, of its folder and of its distribution.
        backend: Where it will run.
        mongo: Whether it stores its items in MongoDB.
        minimal: Whether it is one module and a test.
    """

    name: str
    backend: str = DEFAULT_HYPERSCALER
    mongo: bool = False
    minimal: bool = False


def files_of(wanted: Wanted) -> dict[str, str]:
    """Return the files of a new service: from path, with slashes, to text."""
    folders = ["common", "minimal"] if wanted.minimal else ["common", "full", "deploy"]
    if wanted.mongo:
        folders.insert(2, "mongo")
    found: dict[str, str] = {}
    for folder in folders:
        found |= _read(files("totoms.scaffold") / "templates" / folder)
    if not wanted.minimal:
        found[".env.example"] = found[".env"]
    values = _values(wanted)
    return {path: Template(text).substitute(values) for path, text in sorted(found.items())}


def _read(folder: Traversable, above: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            found |= _read(entry, f"{above}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            found[above + entry.name.removesuffix(_SUFFIX)] = entry.read_text(encoding="utf-8")
    return found


def _values(wanted: Wanted) -> dict[str, str]:
    extra = "" if wanted.backend == DEFAULT_HYPERSCALER else f"[{wanted.backend}]"
    dependencies = [f"totoms{extra}>=2,<3", *(["pymongo>=4.13"] if wanted.mongo else [])]
    modules = ["service"] if wanted.minimal else ["events", "service", *(["store"] if wanted.mongo else [])]
    return {
        "name": wanted.name,
        "backend": wanted.backend,
        "database": wanted.name.replace(".", "-"),
        "dependencies": ", ".join(f'"{one}"' for one in dependencies),
        "modules": ", ".join(f'"{one}"' for one in modules),
        "unignored": "\n".join(f"!{one}.py" for one in modules),
        "environment": _MONGO_URL if wanted.mongo else "# LOG_LEVEL=DEBUG",
        "variables": "\n      MONGO_URL: mongodb://mongo:27017" if wanted.mongo else "",
        "services": _MONGO_SERVICE if wanted.mongo else "",
        "readme": "" if wanted.minimal else _DEPLOYING.rstrip("\n"),
    }
