"""Schemas as documents hold them: in a stable order, and with references that resolve."""

from __future__ import annotations

from typing import Any


def moved(part: Any, old: str, new: str) -> Any:
    """Return a part of a document whose references that begin with `old` begin with `new`."""
    if isinstance(part, dict):
        return {
            name: new + value.removeprefix(old)
            if name == "$ref" and isinstance(value, str) and value.startswith(old)
            else _mapping(value, old, new)
            if name == "mapping" and "propertyName" in part
            else moved(value, old, new)
            for name, value in part.items()
        }
    return [moved(one, old, new) for one in part] if isinstance(part, list) else part


def _mapping(mapping: Any, old: str, new: str) -> Any:
    """Return the mapping of a discriminator, whose values are references."""
    if not isinstance(mapping, dict):
        return mapping
    return {name: f"{new}{one.removeprefix(old)}" if str(one).startswith(old) else one for name, one in mapping.items()}


def in_order(part: Any) -> Any:
    """Return a part of a document with the keys of objects, and the names in `required`, in order."""
    if isinstance(part, dict):
        made = {name: in_order(part[name]) for name in sorted(part)}
        required = made.get("required")
        if isinstance(required, list) and all(isinstance(one, str) for one in required):
            made["required"] = sorted(required)
        return made
    return [in_order(one) for one in part] if isinstance(part, list) else part
