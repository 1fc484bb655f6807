"""Sample values for schemas, which prefill the forms for calls."""

from __future__ import annotations

from typing import Any

from totoms.contracts.shapes import resolve


def body_of(operation: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """Return a sample of an operation's JSON body; None if it takes none."""
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema")
    return None if schema is None else sample(schema, {"schemas": schemas})


def sample(schema: Any, document: Any, depth: int = 0) -> Any:
    """Return a sample value for a schema."""
    schema = resolve(schema, document)
    if not isinstance(schema, dict) or depth > 6:
        return None
    for name in ("default", "const"):
        if name in schema:
            return schema[name]
    for name in ("examples", "enum"):
        if schema.get(name):
            return schema[name][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return sample(schema[name][0], document, depth + 1)
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return {name: sample(one, document, depth + 1) for name, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [sample(schema.get("items", {}), document, depth + 1)]
    plain = {
        "string": "text",
        "integer": schema.get("minimum", 1),
        "number": schema.get("minimum", 1.0),
        "boolean": True,
    }
    return plain.get(str(kind))
