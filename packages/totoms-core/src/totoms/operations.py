"""How an interface marks what a backend must implement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])


def backend_operation(function: _Function) -> _Function:
    """Mark a method of an interface that every backend implements.

    At run time it is :func:`abc.abstractmethod`: a class that lacks one is refused. Type checkers do not know that,
    because they would refuse ``CloudStorage("bucket")``, which gives an implementation and is what users write.
    """
    function.__isabstractmethod__ = True  # type: ignore[attr-defined]
    return function
