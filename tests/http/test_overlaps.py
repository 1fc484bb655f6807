"""Routes of which one takes requests from a later one: the declared order is kept, and protection never gets lost."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, Request

from support.http.app import KEY, Log, Settings, make_service
from totoms import APIEndpoint, ConfigurationError, ExecutionContext, Requires, UserContext, public, toto_delegate
from totoms.auth.tokens import make_token
from totoms.http.overlaps import Overlap, overlap_of

OVERLAPS = [
    ("/hello/{name}", "/hello/me", "ALL"),
    ("/hello/me", "/hello/{name}", "NOTHING"),
    ("/a/{x}", "/a/{y}", "ALL"),
    ("/a/{x}", "/b/{x}", "NOTHING"),
    ("/a/{x:int}", "/a/{y}", "NOTHING"),
    ("/a/{y}", "/a/{x:int}", "ALL"),
    ("/a/{x:int}", "/a/b", "NOTHING"),
    ("/a/{x:int}", "/a/12", "ALL"),
    ("/a/{x}", "/a/b/c", "NOTHING"),
    ("/{a}/x", "/y/{b}", "SOME"),
    ("/y/{b}", "/{a}/x", "SOME"),
    ("/{p:path}", "/a/b/c", "ALL"),
    ("/{p:path}", "/a/{b}", "ALL"),
    ("/a/b/c", "/{p:path}", "NOTHING"),
    ("/a/{p:path}", "/a/{q:path}", "ALL"),
    ("/a/{p:path}/x", "/a/b", "NOTHING"),
    ("/static/*", "/static/a.js", "ALL"),
    ("/static/*", "/static", "NOTHING"),
    ("/{name}.json", "/me", "NOTHING"),
    ("/{name}.json", "/me.json", "ALL"),
    ("/{name}", "/{other}.json", "ALL"),
    ("/{name}.json", "/{other}", "NOTHING"),
    ("/{x}", "/", "NOTHING"),
    ("/a", "/a", "ALL"),
]


@pytest.mark.parametrize(("first", "later", "expected"), OVERLAPS)
def test_overlap_is_found_by_the_templates(first: str, later: str, expected: str) -> None:
    assert overlap_of(first, later) is Overlap[expected]


def test_overlap_agrees_with_what_starlette_matches() -> None:
    from starlette.routing import compile_path

    for first, later, expected in OVERLAPS:
        if "{" in later or "*" in first + later:
            continue
        assert (expected == "ALL") == bool(compile_path(first)[0].match(later)), (first, later)


def named(name: str) -> Any:
    @toto_delegate
    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> str:
        return name

    return delegate


def endpoint(path: str, method: str = "GET", **more: Any) -> APIEndpoint:
    return APIEndpoint(method, path, named(path), **more)


async def test_declared_order_is_kept_with_one_warning(log: Log) -> None:
    service = make_service(endpoint("/hello/{name}"), endpoint("/hello/me"), base_path="/b")

    async with service.client(make_token(KEY, "me")) as client:
        assert (await client.get("/b/hello/me")).json() == "/hello/{name}"
    warnings = [record["message"] for record in log.records() if record["severity"] == "WARNING"]
    assert warnings == ["GET /b/hello/{name} comes before GET /b/hello/me and takes all of its requests."]


def test_specific_path_first_is_not_worth_a_word(log: Log) -> None:
    make_service(endpoint("/hello/me"), endpoint("/hello/{name}", public=True), endpoint("/hello/{name}", "POST"))

    assert "takes" not in log.text


ADMIN, EDITOR = Requires(roles={"admin"}), Requires(roles={"editor"})
DIFFERENT: dict[str, list[dict[str, Any]]] = {
    "open before closed": [{"public": True}, {}],
    "closed before open": [{}, {"public": True}],
    "any caller before some": [{}, {"requires": ADMIN}],
    "some before others": [{"requires": EDITOR}, {"requires": ADMIN}],
}


@pytest.mark.parametrize("options", DIFFERENT.values(), ids=DIFFERENT)
def test_overlap_of_different_protection_is_refused(options: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_service(endpoint("/posts/{slug}", **options[0]), endpoint("/posts/mine", **options[1]))

    assert str(caught.value) == (
        "GET /posts/{slug} comes before GET /posts/mine and takes all of its requests, but they differ in who may call "
        "them: declare GET /posts/mine first."
    )


def test_same_requirements_overlap_with_a_warning(log: Log) -> None:
    make_service(endpoint("/posts/{slug}", requires=ADMIN), endpoint("/posts/mine", requires=Requires(roles={"admin"})))

    assert "takes all" in log.text


def test_exclusion_counts_as_protection() -> None:
    with pytest.raises(ConfigurationError, match="differ in who may call"):
        make_service(endpoint("/posts/{slug}"), endpoint("/posts/mine"), config=Settings(open_paths=["/posts/{slug}"]))


def test_where_each_takes_some_the_closed_one_must_come_first(log: Log) -> None:
    first, later = endpoint("/{a}/list", public=True), endpoint("/admin/{b}", requires=ADMIN)
    with pytest.raises(ConfigurationError, match="takes some of its requests, but they differ"):
        make_service(first, later)

    make_service(later, first)

    assert "GET /admin/{b} comes before GET /{a}/list and takes some of its requests." in log.text


def test_router_is_compared_with_the_endpoints_before_it(log: Log) -> None:
    def router() -> APIRouter:
        made = APIRouter()
        made.add_api_route("/posts/mine", lambda: "mine")
        return made

    make_service(endpoint("/posts/{slug}"), routers=[router()])
    assert "takes all" in log.text
    with pytest.raises(ConfigurationError, match="differ in who may call"):
        make_service(endpoint("/posts/{slug}"), routers=[public(router())])


def test_router_cannot_hide_behind_a_route_of_the_service() -> None:
    router = APIRouter()
    router.add_api_route("/health", lambda: "mine")
    with pytest.raises(ConfigurationError, match="GET /health comes before GET /health"):
        make_service(routers=[router])
