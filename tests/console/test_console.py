"""The console of a running service: what it shows, and what can be done."""

from __future__ import annotations

import contextlib
import html
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from standins.ports import free_port
from support.consoles import WithConsole
from support.processes import DEADLINE


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[WithConsole]:
    """A service whose console may write."""
    process = WithConsole(tmp_path, "--write")
    yield process
    process.kill()


@pytest.fixture
def browser(shop: WithConsole) -> Iterator[httpx.Client]:
    with contextlib.closing(shop.browser()) as client:
        yield client


def eventually(look: Callable[[], Any], accept: Callable[[Any], bool] = bool) -> Any:
    """Look again and again until it is as wanted, and return it."""
    ends = time.monotonic() + DEADLINE
    while not accept(seen := look()):
        assert time.monotonic() < ends, seen
        time.sleep(0.02)
    return seen


def messages(client: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/data/messages").json()
    return found


def handled(client: httpx.Client, item: str) -> dict[str, Any]:
    """Wait until a message was handled, and return it."""

    def look() -> list[dict[str, Any]]:
        return [one for one in messages(client) if f'"{item}"' in one["body"] and one["handlings"]]

    found: dict[str, Any] = eventually(look)[0]
    return found


def test_message_is_followed_from_the_request_to_its_handler(shop: WithConsole, browser: httpx.Client) -> None:
    page = shop.place(browser, "lamp")
    assert ">200</b>" in page
    message = handled(browser, "lamp")

    assert (message["type"], message["topic"], message["publisher"]) == ("placed", "orders", "shop")
    (handling,) = message["handlings"]
    assert (handling["service"], handling["handler"], handling["attempt"], handling["outcome"]) == (
        "shop",
        "ship",
        1,
        "ack",
    )
    shown = browser.get(f"/messages/{message['id']}").text
    assert "publish orders" in shown
    assert "process orders" in shown
    assert "Placed lamp" in shown, "the log of the same correlation id"
    spans = eventually(
        lambda: browser.get(f"/data/traces/{message['trace']}").json(),
        lambda found: any(one["name"] == "process orders" for one in found),
    )
    depths = {one["name"]: one["depth"] for one in spans}
    assert depths["process orders"] > depths["publish orders"] > depths["POST /place"] == 0


def test_dead_letter_is_shown_edited_and_replayed(shop: WithConsole, browser: httpx.Client) -> None:
    shop.place(browser, "fail-1")
    handled(browser, "fail-1")
    (letter,) = eventually(lambda: browser.get("/data/dead-letters/shop-orders").json())
    page = browser.get("/dead-letters", params={"subscription": "shop-orders", "letter": letter["letter_id"]}).text
    assert "fail-1 is sold out" in page

    form = {"topic": "orders", "type": "placed", "data": '{"item": "lamp-2"}'}
    assert browser.post("/publish", data=form).status_code == 200
    assert handled(browser, "lamp-2")["handlings"][0]["outcome"] == "ack"
    assert len(browser.get("/data/dead-letters/shop-orders").json()) == 1, "the dead letter stays"

    browser.post("/dead-letters/replay", data={"subscription": "shop-orders", "letter": letter["letter_id"]})
    eventually(lambda: len(handled(browser, "fail-1")["handlings"]), lambda number: number == 2)
    eventually(lambda: browser.get("/data/dead-letters/shop-orders").json())
    browser.post("/dead-letters/purge", data={"subscription": "shop-orders", "all": "yes"})
    assert browser.get("/data/dead-letters/shop-orders").json() == []


def test_what_cannot_be_done_is_a_page_that_says_why(browser: httpx.Client) -> None:
    for path, form, said in (
        ("/publish", {"topic": "orders", "type": "placed", "data": "{"}, "not JSON"),
        ("/publish", {"topic": "nothing", "type": "placed", "data": "{}"}, "No service declares the topic"),
        ("/dead-letters/replay", {"subscription": "shop-orders"}, "Choose a dead letter"),
        ("/endpoints/try", {"service": "nobody"}, "no service"),
        ("/endpoints/try", {"service": "shop", "method": "GET", "path": "/etc"}, "has no endpoint"),
    ):
        answer = browser.post(path, data=form)
        assert 400 <= answer.status_code < 500
        assert said in html.unescape(answer.text)
    for path in ("/messages/unknown", "/files?bucket=other", "/files?bucket=shop-files&key=none", "/nowhere"):
        assert browser.get(path).status_code == 404


def test_value_of_a_parameter_cannot_lead_to_another_path(browser: httpx.Client) -> None:
    form = {"service": "shop", "method": "GET", "path": "/orders/{number}", "in-number": "../health", "user": "ann"}
    assert ">404</b>" in browser.post("/endpoints/try", data=form).text


def test_files_and_the_names_of_secrets_are_shown_and_no_value_is(shop: WithConsole, browser: httpx.Client) -> None:
    shop.place(browser, "chair")
    assert "orders/chair.txt" in browser.get("/files?bucket=shop-files").text
    assert "chair" in browser.get("/files?bucket=shop-files&key=orders/chair.txt").text
    secrets = browser.get("/secrets").text
    assert "shop-key" in secrets
    for path in ("/", "/secrets", "/logs", "/data/services", "/data/logs", "/data/messages"):
        assert "the-canary-value" not in browser.get(path).text


def test_depth_and_age_of_a_subscription_are_read_without_receiving(shop: WithConsole, browser: httpx.Client) -> None:
    (found,) = browser.get("/data/subscriptions").json()
    assert (found["name"], found["waiting"], found["problem"]) == ("shop-orders", 0, "")


def test_text_of_strangers_is_escaped(shop: WithConsole, browser: httpx.Client) -> None:
    text = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    shop.place(browser, f"{text}\u202e")
    message = eventually(lambda: [one for one in messages(browser) if "alert" in one["body"] and one["handlings"]])[0]
    for path in (f"/messages/{message['id']}", "/messages", "/logs", "/", "/topics"):
        page = browser.get(path).text
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "\u202e" not in page, "it would turn the text around it"


def test_error_of_a_call_is_shown_in_its_place(browser: httpx.Client) -> None:
    form = {"service": "shop", "method": "GET", "path": "/etc"}
    answer = browser.post("/endpoints/try", data=form, headers={"HX-Request": "true"})
    assert answer.status_code == 404
    assert "has no endpoint" in answer.text
    assert "<html" not in answer.text


def test_page_is_told_when_something_changes(shop: WithConsole, browser: httpx.Client) -> None:
    with browser.stream("GET", "/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        assert next(lines) == "retry: 1000"
        with contextlib.closing(shop.browser()) as other:
            shop.place(other, "lamp")
        assert next(line for line in lines if line.startswith("data:")) == "data: changed"


def test_second_service_of_a_folder_joins(shop: WithConsole, browser: httpx.Client, tmp_path: Path) -> None:
    shop.address  # noqa: B018 - it serves the console
    other = WithConsole(tmp_path, name="stock")
    try:
        assert other.address == shop.address
        names = eventually(
            lambda: [one["name"] for one in browser.get("/data/services").json()], lambda found: len(found) == 2
        )
        assert names == ["shop", "stock"]
        shop.place(browser, "lamp")
        eventually(
            lambda: {one["service"] for one in handled(browser, "lamp")["handlings"]}, lambda found: len(found) == 2
        )
        assert "stock" in browser.get("/").text
    finally:
        other.kill()
    eventually(lambda: ">ended<" in browser.get("/").text)


def test_console_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    first = WithConsole(tmp_path)
    assert first.address
    first.kill()
    second = WithConsole(tmp_path)
    try:
        with contextlib.closing(second.browser()) as client:
            assert client.get("/data/services").json()[0]["process"] == second.pid
    finally:
        second.kill()


def test_console_ends_with_the_service_and_leaves_no_address(shop: WithConsole, tmp_path: Path) -> None:
    origin = shop.origin
    assert (tmp_path / "root" / "console" / "console.json").stat().st_mode & 0o777 == 0o600
    shop.send(signal.SIGINT)
    assert shop.wait() == 0
    headers = {"Authorization": f"Bearer {shop.token}"}
    with contextlib.suppress(httpx.TransportError):  # another console may have its port by now
        assert httpx.get(f"{origin}/data/services", headers=headers).status_code == 403
    assert not list((tmp_path / "root" / "console").iterdir())


def test_open_page_does_not_hold_up_the_end(shop: WithConsole, browser: httpx.Client) -> None:
    with browser.stream("GET", "/live") as stream:
        assert next(stream.iter_lines())
        shop.send(signal.SIGTERM)
        assert shop.wait() == 0


def test_reload_keeps_port_and_token(tmp_path: Path) -> None:
    process = WithConsole(tmp_path, "--reload", f"--console-port={free_port()}")
    try:
        before = process.address
        (tmp_path / "shop.py").write_text((tmp_path / "shop.py").read_text() + "\n")
        process.expect("starting again")
        addresses = eventually(lambda: re.findall(r"Console: (\S+)", process.output), lambda found: len(found) == 2)
        assert addresses == [before, before]
    finally:
        process.kill()


def test_nothing_of_it_is_loaded_without_the_option(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(
        "import atexit, sys\n"
        "from totoms import TotoMicroserviceConfiguration\n"
        "configuration = TotoMicroserviceConfiguration(service_name='plain')\n"
        "atexit.register(lambda: print('LOADED', *sorted(sys.modules)))\n"
    )
    command = [sys.executable, "-m", "totoms", "run", "service:configuration", "--port=0"]
    loaded: list[str] = []
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Listening on" in line:
                process.terminate()
            if line.startswith("LOADED"):
                loaded = line.split()
    assert "totoms.service" in loaded
    unwanted = ("totoms.console", "jinja2", "opentelemetry.sdk")
    assert not [name for name in loaded if name.startswith(unwanted)]


@pytest.mark.parametrize("options", [["--write"], ["--console-port=1"], ["--console", "--workers=2"]])
def test_options_that_do_not_fit_are_one_line(tmp_path: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "totoms", "run", "service:configuration", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_json_of_the_data_is_valid(shop: WithConsole, browser: httpx.Client) -> None:
    for path in ("/data/services", "/data/messages", "/data/logs", "/data/subscriptions"):
        assert isinstance(json.loads(browser.get(path).text), list)


def test_only_pages_that_ask_no_backend_reload_by_themselves(browser: httpx.Client) -> None:
    for path in ("/", "/messages", "/logs"):
        assert "changed from:body" in browser.get(path).text
    for path in ("/topics", "/dead-letters?subscription=shop-orders", "/secrets", "/files"):
        assert "changed from:body" not in browser.get(path).text


def test_deeply_nested_json_is_refused(browser: httpx.Client) -> None:
    form = {"topic": "orders", "type": "placed", "data": "[" * 100_000}
    assert browser.post("/publish", data=form).status_code == 422
    assert browser.post("/join", content=b"[" * 100_000).status_code == 422
