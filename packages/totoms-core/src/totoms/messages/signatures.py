"""Annotations of message handlers, which may be text."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Union


def promises_none(function: Callable[..., Any]) -> bool:
    """Return whether a function is annotated to return None."""
    try:
        returned = resolve(inspect.signature(function).return_annotation, function)
    except (TypeError, ValueError):  # no signature
        return False
    if typing.get_origin(returned) in (Union, UnionType):
        return NoneType in typing.get_args(returned)
    return returned is None or returned is NoneType


def resolve(annotation: Any, function: Callable[..., Any], local_names: Mapping[str, Any] | None = None) -> Any:
    """Return the object that an annotation names; text that names nothing stays text.

    Args:
        annotation: The annotation, which is text under ``from __future__ import annotations``.
        function: The function that has it.
        local_names: Names in the scope where the function is defined.
    """
    if isinstance(annotation, type) or annotation is None:
        return annotation
    bare: Any = inspect.unwrap(function)
    known = dict(vars(sys.modules.get(bare.__module__, typing)))
    holder: Any = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, known, dict(local_names or {}), include_extras=True)["it"]
    except Exception:  # evaluation runs the user's code
        return annotation
