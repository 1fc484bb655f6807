"""Declarations that are wrong, by a name for the test, each with the error that it must raise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from totoms import ConfigurationError

WrongDeclarations = dict[str, tuple[Callable[[], object], str]]


def each(wrong: WrongDeclarations) -> pytest.MarkDecorator:
    """Run a test with `declare` and `message` of each declaration."""
    return pytest.mark.parametrize(("declare", "message"), list(wrong.values()), ids=list(wrong))


def error_of(declare: Callable[[], object]) -> str:
    """Return the text of the ConfigurationError that a declaration raises."""
    with pytest.raises(ConfigurationError) as caught:
        declare()
    return str(caught.value)
