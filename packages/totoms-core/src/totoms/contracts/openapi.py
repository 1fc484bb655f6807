"""The OpenAPI document of a service (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

from typing import Any, Final

from starlette.routing import compile_path

from totoms.contracts.schemas import in_order, moved
from totoms.manifest import Manifest, ManifestEndpoint

REQUIRES: Final = "x-totoms-requires"
"""The extension with the scopes, roles and issuers that an operation requires: OpenAPI cannot express them."""
_BEARER: Final = "bearer"


def openapi_of(manifest: Manifest) -> dict[str, Any]:
    """Return the OpenAPI document of a service."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in sorted(manifest.endpoints, key=lambda one: (one.path, one.method)):
        if endpoint.operation:
            paths.setdefault(compile_path(endpoint.path)[1], {})[endpoint.method.lower()] = _operation(endpoint)
    information = {"title": manifest.service.name, "version": manifest.service.version}
    if manifest.service.description:
        information["description"] = manifest.service.description
    schemas = in_order(moved(manifest.schemas, "#/schemas/", "#/components/schemas/"))
    return {
        "openapi": "3.1.0",
        "info": information,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {_BEARER: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _operation(endpoint: ManifestEndpoint) -> dict[str, Any]:
    found: dict[str, Any] = in_order(moved(endpoint.operation, "#/schemas/", "#/components/schemas/"))
    found["security"] = [] if endpoint.public else [{_BEARER: []}]
    if endpoint.requires:
        found[REQUIRES] = in_order(endpoint.requires)
    return found
