"""Wrong declarations of endpoints, routers, callers and issuers, and their errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends
from starlette.middleware.gzip import GZipMiddleware

from support.declarations import WrongDeclarations, each, error_of
from support.http.app import make_service
from totoms import (
    APIConfiguration,
    APIEndpoint,
    CORSConfiguration,
    ExecutionContext,
    OIDCIssuer,
    Requires,
    TotoMicroserviceConfiguration,
    UserContext,
    public,
    toto_delegate,
)


@toto_delegate
async def delegate(user_context: UserContext, exec_context: ExecutionContext) -> str:
    return "x"


@toto_delegate
async def with_body(user_context: UserContext, exec_context: ExecutionContext) -> dict[str, str]:
    return {}


async def undecorated() -> None: ...


def reads_the_caller(user: UserContext) -> None: ...


def endpoint(**more: Any) -> APIEndpoint:
    return APIEndpoint(**{"method": "GET", "path": "/x", "delegate": delegate, **more})


def issuer(**more: Any) -> OIDCIssuer:
    return OIDCIssuer(**{"issuer": "https://id.example", "audience": "us", **more})


def router(path: str = "/x") -> APIRouter:
    made = APIRouter()
    made.add_api_route(path, undecorated)
    return made


ADMIN = Requires(roles={"admin"})
WRONG: WrongDeclarations = {
    # --- endpoints ---
    "informational status": (
        lambda: endpoint(status_code=101),
        "APIEndpoint.status_code: Input should be greater than or equal to 200",
    ),
    "status that does not exist": (
        lambda: endpoint(status_code=600),
        "APIEndpoint.status_code: Input should be less than or equal to 599",
    ),
    "one tag": (lambda: endpoint(tags="posts"), "APIEndpoint.tags: Input should be a valid list"),
    "bare function as a dependency": (
        lambda: endpoint(dependencies=[undecorated]),
        "APIEndpoint.dependencies.0: must be Depends(...)",
    ),
    "responses without a description": (
        lambda: endpoint(responses={404: "No such post"}),
        "APIEndpoint.responses.404: Input should be a valid dictionary",
    ),
    "requires a role by name": (
        lambda: endpoint(requires="admin"),
        "APIEndpoint.requires: Input should be a valid dictionary or instance of Requires",
    ),
    "requires with public": (
        lambda: endpoint(requires=ADMIN, public=True),
        "APIEndpoint.configuration: requires needs a caller with a token: leave out public=True, or requires",
    ),
    "misspelt field": (
        lambda: endpoint(require=ADMIN),
        "APIEndpoint.require: unknown field; did you mean 'requires'?",
    ),
    "two operations of one name": (
        lambda: APIConfiguration(api_endpoints=[endpoint(operation_id="a"), endpoint(operation_id="a", method="POST")]),
        "APIConfiguration.api_endpoints: two operation_ids 'a'",
    ),
    "body where there is none": (
        lambda: make_service(endpoint(delegate=with_body, status_code=204)),
        "GET /x cannot be served: Status code 204 must not have a response body",
    ),
    "dependency that reads the caller": (
        lambda: make_service(endpoint(dependencies=[Depends(reads_the_caller)])),
        "GET /x: APIEndpoint.dependencies depends on reads_the_caller, which would read 'user' from the request.",
    ),
    "function that is not a delegate": (
        lambda: make_service(endpoint(delegate=undecorated)),
        "GET /x: the delegate is not decorated with @toto_delegate.",
    ),
    "requires on a path that a pattern makes public": (
        lambda: make_service(endpoint(requires=ADMIN), public_routes=["/x"]),
        "GET /x has requires, but public_routes or is_path_excluded opens it to callers without a token.",
    ),
    "general path before one with a role": (
        lambda: make_service(endpoint(path="/{a}"), endpoint(requires=ADMIN)),
        "GET /{a} comes before GET /x and takes all of its requests, but they differ in who may call them: declare "
        "GET /x first.",
    ),
    # --- what an endpoint requires ---
    "requires nothing": (
        lambda: Requires(),
        "Requires.configuration: requires nothing: name scopes, roles, issuers or any_of",
    ),
    "one role": (lambda: Requires(roles="admin"), "Requires.roles: must be a set of names: {'admin'}"),
    "one scope": (lambda: Requires("a:write"), "Requires.scopes: must be a set of names: {'a:write'}"),
    "role without a name": (
        lambda: Requires(roles={""}),
        "Requires.roles.0: String should have at least 1 character",
    ),
    "alternatives that are not requirements": (
        lambda: Requires(any_of=["admin"]),
        "Requires.any_of.0: Input should be a valid dictionary or instance of Requires",
    ),
    # --- the API ---
    "delegate as a router": (
        lambda: APIConfiguration(routers=[delegate]),
        "APIConfiguration.routers.0: must be a fastapi.APIRouter",
    ),
    "bare middleware": (
        lambda: APIConfiguration(middleware=[GZipMiddleware]),
        "APIConfiguration.middleware.0: must be starlette.middleware.Middleware(GZipMiddleware, ...)",
    ),
    "handler of something other than an exception": (
        lambda: APIConfiguration(exception_handlers={"ValueError": undecorated}),
        "APIConfiguration.exception_handlers.ValueError.[key]: the key must be a subclass of Exception, or a status "
        "from 400 to 599",
    ),
    "handler of a success": (
        lambda: APIConfiguration(exception_handlers={200: undecorated}),
        "APIConfiguration.exception_handlers.200.[key]: the key must be a subclass of Exception, or a status from "
        "400 to 599",
    ),
    "handler that is not a function": (
        lambda: APIConfiguration(exception_handlers={404: "Not here"}),
        "APIConfiguration.exception_handlers.404: must be a function that takes the request and the exception",
    ),
    "router on a path of the service": (
        lambda: make_service(routers=[router("/health")]),
        "GET /health comes before GET /health and takes all of its requests, but they differ in who may call them: "
        "declare GET /health first.",
    ),
    "router with a dependency that reads the caller": (
        lambda: make_service(routers=[APIRouter(dependencies=[Depends(reads_the_caller)])]),
        "APIConfiguration.routers.0 depends on reads_the_caller, which would read 'user' from the request.",
    ),
    "open router behind a closed path": (
        lambda: make_service(endpoint(path="/{a}"), routers=[public(router())]),
        "GET /{a} comes before GET /x and takes all of its requests, but they differ in who may call them: declare "
        "GET /x first.",
    ),
    "invalid name of a header": (
        lambda: CORSConfiguration(expose_headers=["x-a: b"]),
        "CORSConfiguration.expose_headers.0: must be the name of a header, or '*'",
    ),
    "any header with credentials": (
        lambda: CORSConfiguration(allow_origins=["https://a.example"], allow_credentials=True, expose_headers=["*"]),
        "CORSConfiguration.configuration: allow_credentials needs explicit expose_headers: browsers do not read '*' as "
        "any then",
    ),
    # --- issuers ---
    "no audience": (
        lambda: issuer(audience=[]),
        "OIDCIssuer.audience.constrained-str: Input should be a valid string; "  # pydantic names both alternatives
        "OIDCIssuer.audience.list[constrained-str]: List should have at least 1 item after validation, not 0",
    ),
    "issuer without https to discover keys at": (
        lambda: issuer(issuer="id.example"),
        "OIDCIssuer.configuration: give jwks_uri, or an issuer that is an https address: its keys are found there",
    ),
    "keys without https": (
        lambda: issuer(jwks_uri="http://id.example/keys"),
        "OIDCIssuer.jwks_uri: must be https (plain http only to this machine)",
    ),
    "both kinds of tokens": (
        lambda: issuer(token_use="both"),
        "OIDCIssuer.token_use: Input should be 'id' or 'access'",
    ),
    "symmetric algorithm": (
        lambda: issuer(algorithm="HS256"),
        "OIDCIssuer.algorithm: Input should be 'RS256', 'RS384', 'RS512', 'PS256', 'ES256', 'ES384' or 'EdDSA'",
    ),
    "claim without a name": (
        lambda: issuer(roles_claim=""),
        "OIDCIssuer.roles_claim: String should have at least 1 character",
    ),
    # --- the service ---
    "empty version": (
        lambda: TotoMicroserviceConfiguration(service_name="a", version=""),
        "TotoMicroserviceConfiguration.version: String should have at least 1 character",
    ),
    "description that is not a string": (
        lambda: TotoMicroserviceConfiguration(service_name="a", description=7),
        "TotoMicroserviceConfiguration.description: Input should be a valid string",
    ),
}


@each(WRONG)
def test_wrong_declaration_is_refused_with_the_field_and_the_rule(declare: Callable[[], object], message: str) -> None:
    assert error_of(declare) == message
