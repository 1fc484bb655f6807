"""examples/orders as `make demo EXAMPLE=orders` starts it: two services, an issuer, and the lines that it prints."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.demos import Demo, as_request, paste
from support.orders import run_the_lines_and_stop, start_orders


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Demo]]:
    started: list[Demo] = []

    def starting() -> Demo:
        started.append(start_orders(tmp_path))
        return started[-1]

    yield starting
    for demo in started:
        demo.send(signal.SIGTERM)  # it stops the other service
        demo.wait()
        demo.kill()


def test_printed_lines_work_and_both_services_drain(tmp_path: Path) -> None:
    run_the_lines_and_stop(tmp_path)


def test_other_service_stops_when_the_demo_is_killed(start: Callable[[], Demo]) -> None:
    demo = start()
    demo.expect("Ctrl-C stops")
    os.kill(demo.pid, signal.SIGKILL)
    demo.expect("invoices has stopped")


def test_order_is_placed_once_and_its_repetition_changes_nothing(start: Callable[[], Demo]) -> None:
    demo = start()
    place, read, *_ = demo.lines_to_paste
    paste(place)
    demo.expect("Order lamps is invoiced")
    assert paste(place)["status"] == "invoiced"
    assert paste(read)["status"] == "invoiced"
    other = {**as_request(place), "content": '{"item": "lamp", "quantity": 3, "price": "19.90"}'}
    assert httpx.request(**other).status_code == 409


def test_nonsense_is_refused_by_both_services(start: Callable[[], Demo]) -> None:
    place, _, download, upload, *_ = map(as_request, start().lines_to_paste)

    def status(request: dict[str, Any], **changes: Any) -> int:
        answer = httpx.request(**{**request, **changes})
        assert {"code", "message", "cid", "detail"} <= answer.json().keys()
        return answer.status_code

    for content in ("", "nonsense", "[]", "{}", '{"item": "x", "quantity": 0, "price": "1"}'):
        assert status(place, content=content) == 422, content
    for price in ("-1", "0", "NaN", "1e99", "0.001", "many"):
        assert status(place, content=f'{{"item": "x", "quantity": 1, "price": "{price}"}}') == 422, price
    assert status(place, url=place["url"].replace("lamps", "UPPER")) == 422
    assert status(download) == 404  # nothing was ordered
    assert status(upload) == 404
    assert status(upload, content=b"\xff") == 404
    assert status(upload, content=b"x" * 65_537) == 413


def test_callers_see_and_change_only_what_is_theirs(start: Callable[[], Demo]) -> None:
    demo = start()
    place, read, download, upload, *_ = lines = demo.lines_to_paste
    paste(place)
    demo.expect("Order lamps is invoiced")
    ann, eve = (as_request(line)["headers"]["Authorization"] for line in (place, upload))

    def status(line: str, caller: str | None, **changes: Any) -> int:
        request = {**as_request(line), **changes}
        request["headers"].pop("Authorization")
        if caller is not None:
            request["headers"]["Authorization"] = caller
        return httpx.request(**request).status_code

    for line in lines:
        assert status(line, None) == 401
        assert status(line, ann[:-8] + "AAAAAAAA") == 401
    assert status(place, eve) == 403  # an accountant is no buyer
    assert status(upload, ann) == 403
    assert status(read, eve) == 404  # another user's order
    assert status(download, eve) == 200
    assert status(upload, eve, content=b"\xff") == 400
    assert httpx.request(**as_request(download)).text.startswith("Invoice for order lamps")
