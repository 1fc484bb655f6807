"""The reference has everything that is public, and every error with what to do."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import totoms
import totoms.errors
import totoms.plugin
import totoms.testing

DOCS = Path(__file__).parents[2] / "docs"
SHOWN = set(
    re.findall(r"^::: (\S+)$", "\n".join(page.read_text() for page in DOCS.glob("reference/*.md")), re.MULTILINE)
)
ERRORS = [name for name, one in vars(totoms.errors).items() if inspect.isclass(one) and issubclass(one, Exception)]


@pytest.mark.parametrize("name", sorted(set(totoms.__all__) - {"__version__", *ERRORS}))
def test_public_name_is_in_the_reference(name: str) -> None:
    assert f"totoms.{name}" in SHOWN


@pytest.mark.parametrize("name", sorted(totoms.plugin.__all__))
def test_name_for_plugins_is_in_the_reference(name: str) -> None:
    assert f"totoms.plugin.{name}" in SHOWN


@pytest.mark.parametrize("name", sorted(totoms.testing.__all__))
def test_name_for_tests_is_in_the_reference(name: str) -> None:
    assert f"totoms.testing.{name}" in SHOWN


@pytest.mark.parametrize("name", ERRORS)
def test_error_is_in_the_reference_with_what_to_do(name: str) -> None:
    assert f"totoms.errors.{name}" in SHOWN
    assert re.search(
        rf"^\| `{name}` \| [^|]+ \| [^|]+ \|$", (DOCS / "reference" / "errors.md").read_text(), re.MULTILINE
    )


def test_every_page_of_the_reference_names_what_exists() -> None:
    for name in SHOWN:
        module, _, attribute = name.rpartition(".")
        found = {"totoms": totoms, "totoms.errors": totoms.errors, "totoms.plugin": totoms.plugin}.get(
            module, totoms.testing
        )
        assert hasattr(found, attribute), name
