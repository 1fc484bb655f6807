"""Add what a service declares to its app: endpoints, routers, middleware and exception handlers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from totoms.declaration.api import APIConfiguration, APIEndpoint
from totoms.errors import ConfigurationError
from totoms.http.access import Access, Decision, public
from totoms.http.delegate import delegate_of
from totoms.http.parameters import check_dependency
from totoms.http.responses import ERROR_RESPONSES
from totoms.http.routes import HeadRoute

if TYPE_CHECKING:
    from fastapi import FastAPI

_OPTIONS: Final = (
    *("status_code", "tags", "summary", "description", "response_model", "dependencies"),
    *("deprecated", "operation_id", "include_in_schema"),
)
"""The fields of `APIEndpoint` that FastAPI's `add_api_route` takes under the same name."""
_NOT_FOR_HEAD: Final = ("include_in_schema", "operation_id")


def add_declared(app: FastAPI, api: APIConfiguration, base_path: str) -> None:
    """Add everything that `api` declares.

    Args:
        app: The app, with the service's own routes.
        api: The declaration.
        base_path: The prefix of endpoints and routers.

    Raises:
        ConfigurationError: The path of an endpoint is taken, a delegate is not decorated, or FastAPI refuses a route.
    """
    for error, handler in api.exception_handlers.items():
        app.add_exception_handler(error, handler)
    app.user_middleware += api.middleware
    _add_endpoints(app, api.api_endpoints, base_path)
    for place, router in enumerate(api.routers):
        for dependency in router.dependencies:
            check_dependency(dependency, f"APIConfiguration.routers.{place}")
        try:
            app.include_router(router, prefix=base_path)
        except Exception as error:  # FastAPI raises many kinds
            raise ConfigurationError(f"APIConfiguration.routers.{place} cannot be served: {error}") from error


def check_access(decided: Sequence[Decision], authenticator: object) -> None:
    """Check that closed delegates can be called, and that those with `requires` are closed.

    Args:
        decided: The access to the routes.
        authenticator: The service's authenticator; false without a token verifier.

    Raises:
        ConfigurationError: One of them is not so.
    """
    for route, path, method, access in decided:
        delegate = delegate_of(getattr(route, "endpoint", None))
        if delegate is None:
            continue
        if access is not Access.CLOSED and delegate.requires is not None:
            raise ConfigurationError(
                f"{method} {path} has requires, but public_routes or is_path_excluded opens it to callers without a "
                "token."
            )
        if access is Access.CLOSED and not authenticator:
            raise ConfigurationError(
                f"There is no token verifier for {method} {path}: set the secret 'jwt-signing-key' or "
                "'toto-expected-audience', or APIConfiguration(oidc_issuers=[...])."
            )


def _add_endpoints(app: FastAPI, endpoints: Sequence[APIEndpoint], base_path: str) -> None:
    heads = []
    answers_head = {base_path + endpoint.path for endpoint in endpoints if endpoint.method == "HEAD"}
    for endpoint in endpoints:
        path = base_path + endpoint.path or "/"
        delegate = _delegate(app, endpoint, path)
        options = _options(endpoint, f"{endpoint.method} {path}")
        try:
            app.add_api_route(path, delegate, methods=[endpoint.method], **options)
            made = [app.routes[-1]]
            if endpoint.method == "GET" and path not in answers_head:
                # A separate route: OpenAPI shows every method of a route.
                of_head = {name: value for name, value in options.items() if name not in _NOT_FOR_HEAD}
                made.append(HeadRoute(path, delegate, dependency_overrides_provider=app, **of_head))
                heads.append(made[-1])
        except Exception as error:  # FastAPI raises many kinds for a bad signature or path
            raise ConfigurationError(f"{endpoint.method} {path} cannot be served: {error}") from error
        if endpoint.public:
            for route in made:
                public(route)
    app.router.routes += heads


def _options(endpoint: APIEndpoint, name: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        option: getattr(endpoint, option) for option in _OPTIONS if option in endpoint.model_fields_set
    }
    options["responses"] = {**ERROR_RESPONSES, **(endpoint.responses or {})}
    for dependency in endpoint.dependencies or ():
        check_dependency(dependency, f"{name}: APIEndpoint.dependencies")
    return options


def _delegate(app: FastAPI, endpoint: APIEndpoint, path: str) -> Any:
    """Return the delegate with what it requires.

    Raises:
        ConfigurationError: It is not decorated, or the path is taken.
    """
    delegate = delegate_of(endpoint.delegate)
    if delegate is None:
        raise ConfigurationError(f"{endpoint.method} {path}: the delegate is not decorated with @toto_delegate.")
    for route in app.routes:
        if getattr(route, "path", None) == path and endpoint.method in (getattr(route, "methods", None) or ()):
            raise ConfigurationError(f"{endpoint.method} {path} is taken by the service itself: choose another path.")
    return endpoint.delegate if endpoint.requires is None else delegate.requiring(endpoint.requires)
