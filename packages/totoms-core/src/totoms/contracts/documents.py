"""The documents of a contract: OpenAPI for the endpoints, AsyncAPI for the events, and a page for people."""

from __future__ import annotations

import json
from typing import Any, Final

from totoms.contracts.asyncapi import asyncapi_of
from totoms.contracts.openapi import openapi_of
from totoms.contracts.page import page_of
from totoms.manifest import Manifest

OPENAPI: Final = "openapi.json"
ASYNCAPI: Final = "asyncapi.json"
PAGE: Final = "index.html"
MARK: Final = "x-totoms-contract"
VERSION: Final = 1
"""The version of the documents, in `MARK`. It is raised when older versions of totoms would compare them wrongly."""


def documents_of(manifest: Manifest) -> dict[str, str]:
    """Return the documents of a service by their file names. The same declaration gives the same bytes."""
    openapi = {MARK: VERSION, **openapi_of(manifest)}
    asyncapi = {MARK: VERSION, **asyncapi_of(manifest)}
    return {OPENAPI: _text(openapi), ASYNCAPI: _text(asyncapi), PAGE: page_of(manifest)}


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
