"""The context manager with which a backend raises its SDK's errors as those of totoms."""

from __future__ import annotations

import pytest

from totoms.errors import BackendError, NotFound, Unavailable
from totoms.plugin import error_mapping


def translate(error: Exception, what: str) -> BackendError | None:
    return Unavailable(f"{what}: {type(error).__name__}") if isinstance(error, OSError) else None


mapped_errors = error_mapping(translate)


def test_error_of_the_sdk_is_translated_and_kept_as_the_cause() -> None:
    original = ConnectionResetError("by peer")
    with pytest.raises(Unavailable, match="the topic: ConnectionResetError") as raised, mapped_errors("the topic"):
        raise original
    assert raised.value.__cause__ is original


def test_error_of_totoms_passes_as_it_is() -> None:
    original = NotFound("gone")
    with pytest.raises(NotFound) as raised, mapped_errors("the topic"):
        raise original
    assert raised.value is original


def test_error_that_is_not_the_sdks_passes() -> None:
    with pytest.raises(ZeroDivisionError), mapped_errors("the topic"):
        raise ZeroDivisionError


def test_block_without_an_error_ends() -> None:
    with mapped_errors("the topic"):
        done = True
    assert done
