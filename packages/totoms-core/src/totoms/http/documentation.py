"""``/docs`` and ``/redoc`` without the internet, with the scripts and styles of the distribution ``fastapi-offline``.

Without it (``pip install 'totoms[docs]'`` installs it) both pages are FastAPI's, and browsers load the scripts from a
public server.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html, get_swagger_ui_oauth2_redirect_html
from fastapi.responses import FileResponse

_DISTRIBUTION: Final = "fastapi_offline"
_SWAGGER: Final = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
_REDOC: Final = "redoc.standalone.js"


def assets() -> Path | None:
    """Return the folder with the scripts and styles; None if they are not installed, or a file is missing."""
    found = importlib.util.find_spec(_DISTRIBUTION)  # does not import it
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).with_name("static")
    return folder if all((folder / name).is_file() for name in (*_SWAGGER, _REDOC)) else None


def add_documentation(app: FastAPI, folder: Path) -> None:
    """Add ``/docs``, ``/redoc`` and their files.

    Args:
        app: The app, made with ``docs_url=None`` and ``redoc_url=None``.
        folder: The folder with the files.
    """
    favicon = "/docs/favicon.png"

    async def swagger(request: Request) -> Response:
        root = _root_path(request)
        return get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=f"{app.title} - Swagger UI",
            swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/docs/swagger-ui.css",
            swagger_favicon_url=root + favicon,
            oauth2_redirect_url=f"{root}/docs/oauth2-redirect",
        )

    async def oauth2_redirect(_request: Request) -> Response:
        return get_swagger_ui_oauth2_redirect_html()

    async def redoc(request: Request) -> Response:
        root = _root_path(request)
        return get_redoc_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=f"{app.title} - ReDoc",
            redoc_js_url=f"{root}/redoc/{_REDOC}",
            redoc_favicon_url=root + favicon,
            with_google_fonts=False,
        )

    app.add_route("/docs", swagger, include_in_schema=False)
    app.add_route("/docs/oauth2-redirect", oauth2_redirect, include_in_schema=False)
    app.add_route("/redoc", redoc, include_in_schema=False)
    for path, name in [*((f"/docs/{name}", name) for name in _SWAGGER), (f"/redoc/{_REDOC}", _REDOC)]:
        app.add_route(path, _serve(folder / name), include_in_schema=False)


def _serve(file: Path) -> Callable[[Request], Awaitable[Response]]:
    async def serve(_request: Request) -> Response:
        return FileResponse(file)

    return serve


def _root_path(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")
