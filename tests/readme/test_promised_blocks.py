"""The code blocks that users were promised, all of them, run by a real service on the local backend."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.processes import Process
from totoms.auth.tokens import make_token

SERVICE = Path(__file__).parents[1] / "support/services/readme.py"
KEY = "a key for the tests of the promised blocks"
Start = Callable[[str], tuple[Process, httpx.Client]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start one part of the service and give its process and a client that may call it."""
    started: list[Any] = []

    def starting(part: str) -> tuple[Process, httpx.Client]:
        variables = {
            "HYPERSCALER": "local",
            "JWT_SIGNING_KEY": KEY,
            "API_KEY": "key-of-the-api",
            "DATABASE_URL": "sqlite://",
        }
        service = Process(SERVICE, part, root=str(tmp_path / "root"), env=variables, cwd=tmp_path)
        started.append(service)
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{service.port()}",
            headers={"Authorization": f"Bearer {make_token(KEY, 'me@example.com', 600)}"},
        )
        started.append(client)
        return service, client

    yield starting
    for thing in reversed(started):
        thing.close() if isinstance(thing, httpx.Client) else thing.kill()


def test_overview_serves_its_endpoints_and_loads_its_secrets(start: Start) -> None:
    service, client = start("overview")

    answer = client.post("/tomescraper/blogs", json={"url": "https://blog.example/1"})

    assert answer.json() == {"status": "success", "data": {"words": 42, "url": "https://blog.example/1"}}
    assert client.post("/tomescraper/test/refresher").json() == {"key": True, "environment": "local"}
    service.expect(r"secrets \('key-of-the-api', 'sqlite://'\) key-of-the-api")


def test_message_bus_is_reached_in_four_ways(start: Start) -> None:
    service, client = start("overview")

    assert client.post("/tomescraper/test/pubsub").json() == {"published": 4}

    for way in ("delegate", "singleton", "instance", "handler"):
        service.expect(rf"^refreshed {way} https://blog.example me$")
    service.expect(r"^handled [0-9a-f]+ with \w*MessageBus$")


def test_registered_delegate_is_served_under_the_base_path(start: Start) -> None:
    _, client = start("api")

    assert client.post("/myservice/blogs", json={"url": "u"}).json()["status"] == "success"
    assert client.post("/blogs", json={"url": "u"}).status_code == 404


def test_published_message_reaches_the_handler_of_its_type(start: Start) -> None:
    service, _ = start("messaging")

    service.expect(r"^updated topic-7 Python cid=correlation-id-123$")


def test_file_is_uploaded_downloaded_listed_read_and_deleted(start: Start, tmp_path: Path) -> None:
    service, client = start("storage")

    answer = client.post("/files", params={"bucket": "some-bucket"}).json()

    assert answer == {"files": ["my-folder/hello.txt"], "content": "Hello, Toto!", "left": []}
    assert (tmp_path / "downloaded_hello.txt").read_text() == "Hello, Toto!"
    service.expect("Deleted file: my-folder/hello.txt")


def test_validation_error_of_a_delegate_is_400(start: Start) -> None:
    _, client = start("storage")

    answer = client.post("/files")

    assert answer.status_code == 400
    assert re.fullmatch(r"Missing 'bucket' query parameter\.", answer.json()["message"])
