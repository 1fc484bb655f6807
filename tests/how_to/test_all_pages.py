"""Every page of docs/how-to has a test, and its commands are written as everywhere else."""

from __future__ import annotations

import re

import pytest

from support.pages import DOCS

PAGES = sorted(path.stem for path in (DOCS / "how-to").glob("*.md") if path.stem != "index")
TESTS = DOCS.parent / "tests" / "how_to"


@pytest.mark.parametrize("page", PAGES)
def test_page_has_a_test(page: str) -> None:
    test = TESTS / f"test_{page.replace('-', '_')}.py"
    assert test.is_file(), f"write {test.name}"
    assert f"how-to/{page}.md" in test.read_text()


@pytest.mark.parametrize("page", PAGES)
def test_page_begins_with_what_it_is_for_and_never_writes_the_bare_command(page: str) -> None:
    text = (DOCS / "how-to" / f"{page}.md").read_text()
    assert re.match(r"# \w[^\n]+\n\n[A-Z`]", text), "a title, then a sentence"
    assert not re.search(r"^totoms ", text, re.MULTILINE), "write python -m totoms"
