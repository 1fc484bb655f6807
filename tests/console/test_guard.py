"""Nobody but the person who started the console gets in: each request is sent over a real socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest

from support.consoles import WithConsole
from support.processes import DEADLINE


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WithConsole]:
    """A service whose console only shows."""
    process = WithConsole(tmp_path_factory.mktemp("shop"))
    yield process
    process.kill()


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WithConsole]:
    """A service whose console may write."""
    process = WithConsole(tmp_path_factory.mktemp("writing"), "--write")
    yield process
    process.kill()


def ask(process: WithConsole, method: str = "GET", path: str = "/", **headers: str) -> httpx.Response:
    """Send a request with these headers only."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.request(method, process.origin + path, headers=given, timeout=DEADLINE, trust_env=False)


def cookie(process: WithConsole) -> str:
    return f"totoms_console_{process.origin.rpartition(':')[2]}={process.token}"


PATHS = [
    "/",
    "/messages",
    "/logs",
    "/secrets",
    "/data/services",
    "/data/logs",
    "/live",
    "/static/console.css",
    "/nowhere",
]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_served_without_the_token(shop: WithConsole, path: str) -> None:
    answer = ask(shop, path=path)
    assert answer.status_code == 403
    assert "shop" not in answer.text


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "\u00e9", "%00"])
def test_another_token_is_refused(shop: WithConsole, token: str) -> None:
    assert ask(shop, path=f"/?token={token}").status_code == 403
    assert ask(shop, path="/data/services", authorization=f"Bearer x{token.encode().hex()}").status_code == 403
    name = cookie(shop).partition("=")[0]
    assert ask(shop, cookie=f"{name}={token.encode().hex()}").status_code == 403


def test_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(shop: WithConsole) -> None:
    answer = ask(shop, path=f"/?token={shop.token}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    given = answer.headers["set-cookie"].lower()
    assert "httponly" in given
    assert "samesite=strict" in given
    assert ask(shop, cookie=cookie(shop)).status_code == 200


def test_token_in_the_address_of_another_page_does_not_help(shop: WithConsole) -> None:
    assert ask(shop, path=f"/logs?token={shop.token}").status_code == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:PORT", "127.0.0.1.evil.example:PORT", "127.0.0.1", "127.0.0.1:1", "[::1]:PORT", ""],
)
def test_foreign_host_is_refused(shop: WithConsole, host: str) -> None:
    host = host.replace("PORT", shop.origin.rpartition(":")[2])
    assert ask(shop, cookie=cookie(shop), host=host).status_code in (400, 403)


def test_two_hosts_are_refused(shop: WithConsole) -> None:
    port = int(shop.origin.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as connection:
        lines = ["GET / HTTP/1.1", f"Host: 127.0.0.1:{port}", "Host: evil.example", f"Cookie: {cookie(shop)}", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(100).split()[1] in (b"400", b"403")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:PORT", "http://127.0.0.1:1", ""])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_foreign_origin_is_refused(writing: WithConsole, method: str, origin: str) -> None:
    origin = origin.replace("PORT", writing.origin.rpartition(":")[2])
    assert ask(writing, method, "/publish", cookie=cookie(writing), origin=origin).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_request_from_another_site_is_refused(shop: WithConsole, site: str) -> None:
    assert ask(shop, cookie=cookie(shop), sec_fetch_site=site).status_code == 403
    assert ask(shop, path=f"/?token={shop.token}", sec_fetch_site=site).status_code == 403


def test_change_without_an_origin_is_refused(writing: WithConsole) -> None:
    for path in ("/publish", "/dead-letters/replay", "/dead-letters/purge", "/endpoints/try"):
        assert ask(writing, "POST", path, cookie=cookie(writing)).status_code == 403


def test_console_that_only_shows_has_no_way_to_change_something(shop: WithConsole) -> None:
    for path in ("/publish", "/dead-letters/replay", "/dead-letters/purge"):
        answer = ask(shop, "POST", path, cookie=cookie(shop), origin=shop.origin)
        assert answer.status_code in (404, 405)
    form = {"service": "shop", "method": "POST", "path": "/place", "query": "item=a", "user": "ann"}
    headers = {"cookie": cookie(shop), "origin": shop.origin}
    answer = httpx.post(f"{shop.origin}/endpoints/try", data=form, headers=headers, timeout=DEADLINE, trust_env=False)
    assert answer.status_code == 409
    assert "--write" in answer.text
    assert "only shows" in ask(shop, cookie=cookie(shop)).text


@pytest.mark.parametrize("path", ["/", "/nowhere", "/data/services", "/static/live.js", "/messages/none"])
def test_every_answer_has_the_policy(shop: WithConsole, path: str) -> None:
    for answer in (ask(shop, path=path, cookie=cookie(shop)), ask(shop, path=path)):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers


def test_pages_have_no_script_or_style_of_their_own(shop: WithConsole) -> None:
    for path in ("/", "/endpoints", "/topics", "/messages", "/dead-letters", "/files", "/secrets", "/logs"):
        page = ask(shop, path=path, cookie=cookie(shop)).text
        assert "<style" not in page
        assert " style=" not in page
        assert " onclick=" not in page
        assert page.count("<script") == page.count('<script src="/static/') == 2


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{}", b"[1]", b'[{"kind": "x", "value": {}}]', b'[{"kind": "log", "value": {}}]']
)
def test_nonsense_from_a_process_is_refused(shop: WithConsole, body: bytes) -> None:
    headers = {"authorization": f"Bearer {shop.token}"}
    answer = httpx.post(f"{shop.origin}/join", content=body, headers=headers, timeout=DEADLINE, trust_env=False)
    assert answer.status_code == 422
    assert "Traceback" not in answer.text


def test_it_listens_on_this_machine_only(shop: WithConsole) -> None:
    port = int(shop.origin.rpartition(":")[2])
    with socket.socket() as other:
        other.bind(("127.0.0.2", port))  # free, unless it listens on all addresses
