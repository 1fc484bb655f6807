"""Mark the methods that a backend must implement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])


def backend_operation(function: _Function) -> _Function:
    """Mark a method that every backend implements.

    At run time this is :func:`abc.abstractmethod`. It is hidden from type checkers, which would otherwise reject
    ``CloudStorage("bucket")``: that returns an instance of the implementation.
    """
    function.__isabstractmethod__ = True  # type: ignore[attr-defined]
    return function
