"""Raising an SDK's errors as those of totoms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Concatenate, ParamSpec

from totoms.errors import BackendError

_P = ParamSpec("_P")


def error_mapping(
    translate: Callable[Concatenate[Exception, _P], BackendError | None],
) -> Callable[_P, AbstractContextManager[None]]:
    """Return a context manager that raises the errors of its block as those of totoms, with the original as cause.

    Args:
        translate: Takes an error and the arguments of the context manager. It returns the error to raise, or None to
            let the original pass. It is not called with a BackendError, which passes as it is.
    """

    @contextmanager
    def mapped_errors(*args: _P.args, **kwargs: _P.kwargs) -> Iterator[None]:
        try:
            yield
        except BackendError:
            raise
        except Exception as error:
            translated = translate(error, *args, **kwargs)
            if translated is None:
                raise
            raise translated from error

    return mapped_errors
