"""docs/toto_microservice_configuration.md lists every configuration class and field, with its default, and no other."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pydantic
import pytest

import totoms
from totoms.declaration import api, issuers, logging, messaging, requires, resources, server, service
from totoms.local.configuration import LocalConfiguration

PAGE = Path(__file__).parents[2] / "docs" / "toto_microservice_configuration.md"
MODELS = [
    kind
    for module in (api, issuers, logging, messaging, requires, resources, server, service)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, pydantic.BaseModel) and kind.__module__ == module.__name__ and kind.__name__[0] != "_"
]
DATACLASSES = [totoms.TotoEnvironment, totoms.RetryPolicy, totoms.Bucket]
REQUIRED = "required"


def tables(title: str) -> list[dict[str, str]]:
    """The rows of all tables under a heading: from the head of a column to the cell."""
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert section, f"the page has no section for {title}"
    rows: list[dict[str, str]] = []
    head: list[str] = []
    for line in section[1].splitlines():
        if not line.startswith("|"):
            head = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not head:
            head = cells
        elif not set(line) <= set("|-"):
            rows.append(dict(zip(head, cells, strict=True)))
    return rows


def documented_default(cell: str) -> Any:
    """What a cell says: `required`, a literal, or the source text of something else."""
    if cell == REQUIRED:
        return REQUIRED
    text = cell.strip("`")
    if text == "frozenset()":
        return frozenset()
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def actual_default(value: Any) -> Any:
    """The default in the form in which the page tells it."""
    if value is pydantic.fields.PydanticUndefined or value is dataclasses.MISSING:
        return REQUIRED
    if inspect.isclass(value):
        return value.__name__
    if isinstance(value, pydantic.BaseModel) or dataclasses.is_dataclass(value):
        assert value == type(value)()
        return f"{type(value).__name__}()"
    return str(value) if isinstance(value, Path) else value


def defaults_of(kind: type[Any]) -> dict[str, Any]:
    if dataclasses.is_dataclass(kind):
        return {field.name: actual_default(field.default) for field in dataclasses.fields(kind)}
    return {
        name: actual_default(field.get_default(call_default_factory=True)) for name, field in kind.model_fields.items()
    }


@pytest.mark.parametrize("kind", [*MODELS, *DATACLASSES, LocalConfiguration], ids=lambda kind: kind.__name__)
def test_reference_names_every_field_and_default_in_order(kind: type[Any]) -> None:
    told = {row["Field"].strip("`"): documented_default(row["Default"]) for row in tables(kind.__name__)}

    assert list(told.items()) == list(defaults_of(kind).items())


def test_reference_names_the_variable_of_every_local_setting() -> None:
    told = {row["Field"].strip("`"): row["Variable"].strip("`") for row in tables("LocalConfiguration")}

    for name, field in LocalConfiguration.model_fields.items():
        assert isinstance(field.validation_alias, pydantic.AliasChoices)
        assert told[name] in field.validation_alias.choices


def test_reference_names_every_attribute_and_method_of_the_custom_configuration() -> None:
    rows = tables("TotoControllerConfig")
    told = {row["Attribute"].strip("`") for row in rows if "Attribute" in row}
    told |= {row["Method"].strip("`").partition("(")[0] for row in rows if "Method" in row}
    made = totoms.TotoControllerConfig(totoms.TotoEnvironment("local"))

    assert told == {name for name in (*dir(totoms.TotoControllerConfig), *vars(made)) if not name.startswith("_")}


def test_reference_explains_every_field() -> None:
    for kind in [*MODELS, *DATACLASSES, LocalConfiguration]:
        for row in tables(kind.__name__):
            assert len(row["Meaning"]) > 10, f"{kind.__name__}.{row['Field']}"
