"""Every block of docs/http.md runs by itself, and does what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from totoms.testing import TestMicroservice

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
BLOCK = re.compile(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = dict(BLOCK.findall(PAGE.read_text()))
Check = Callable[[TestMicroservice, Any], Awaitable[None]]
CHECKS: dict[str, Check] = {}


def checks(title: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        CHECKS[title] = check
        return check

    return register


@checks("Parameters, status and response model")
async def _parameters(service: TestMicroservice, _block: Any) -> None:
    answer = await service.client.post("/posts?draft=true", json={"title": "Hi"})
    assert (answer.status_code, answer.json()) == (201, {"title": "Draft: Hi", "author": "user@example.com"})
    assert (await service.client.post("/posts", json={})).status_code == 422
    document = service.microservice.app.openapi()
    assert document["info"]["version"] == "1.4.0"
    assert document["paths"]["/posts"]["post"]["responses"]["409"]["description"] == "There is such a post."


@checks("Depends")
async def _depends(service: TestMicroservice, block: Any) -> None:
    assert (await service.client_of("ann@other.example").get("/posts")).status_code == 403
    assert (await service.client.get("/posts")).json() == ["session"]
    assert block.opened[-2:] == ["open", "closed"]


@checks("BackgroundTasks")
async def _background(service: TestMicroservice, block: Any) -> None:
    answer = await service.client.post("/subscribers", params={"address": "a@example.com"})
    assert (answer.status_code, answer.json(), block.sent) == (202, {"status": "subscribed"}, ["a@example.com"])


@checks("UploadFile")
async def _upload(service: TestMicroservice, _block: Any) -> None:
    answer = await service.client.post("/pictures", files={"picture": ("a.png", b"12345")})
    assert answer.json() == {"bytes": 5}
    assert await service.files("pictures").get_file_bytes_async("latest.png") == b"12345"
    assert (await service.client.post("/pictures", files={"picture": b"x" * 6_000_000})).status_code == 413


@checks("Errors")
async def _errors(service: TestMicroservice, _block: Any) -> None:
    found = {slug: await service.client.get(f"/posts/{slug}") for slug in ("gone", "UPPER", "none")}
    assert [answer.status_code for answer in found.values()] == [410, 400, 404]
    for slug in ("gone", "UPPER"):
        assert set(found[slug].json()) == {"code", "message", "cid", "detail"}
    assert found["none"].json() == {"message": "There is no such post."}


@checks("Routers and middleware")
async def _routers(service: TestMicroservice, _block: Any) -> None:
    assert (await service.client_of(None).get("/blog/admin/jobs")).status_code == 401
    assert (await service.client.get("/blog/admin/jobs")).json() == ["digest"]
    assert (await service.client_of(None).get("/blog/status")).headers["content-encoding"] == "gzip"


@checks("WebSocket")
async def _websocket(service: TestMicroservice, _block: Any) -> None:
    assert [one["type"] for one in await _talk(service, "")] == ["websocket.close"]
    sent = await _talk(service, service.client.headers["authorization"])
    assert sent[1] == {"type": "websocket.send", "text": "Hello user@example.com"}


async def _talk(service: TestMicroservice, authorization: str) -> list[Any]:
    sent: list[Any] = []
    headers = [(b"host", b"localhost"), *([(b"authorization", authorization.encode())] if authorization else [])]
    scope = {"type": "websocket", "path": "/chat", "query_string": b"", "subprotocols": [], "headers": headers}

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await service.microservice.app(scope, receive, send)
    return sent


@checks("Streaming")
async def _streaming(service: TestMicroservice, _block: Any) -> None:
    assert (await service.client.get("/download")).text == "0\n1\n2\n"


@checks("Mounted apps")
async def _mounted(service: TestMicroservice, _block: Any) -> None:
    assert (await service.client_of(None).get("/blog/legacy/hello")).status_code == 401
    assert (await service.client.get("/blog/legacy/hello")).json() == "from the old app"


def test_page_has_a_block_for_everything_that_is_checked() -> None:
    assert set(BLOCKS) == {*CHECKS, "dependency_overrides"}


@pytest.mark.parametrize("title", CHECKS)
async def test_block_does_what_the_page_says(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    block = types.ModuleType("block")
    monkeypatch.setitem(sys.modules, "block", block)  # where its annotations are evaluated
    exec(compile(BLOCKS[title], f"{PAGE}: {title}", "exec"), vars(block))
    async with TestMicroservice(block.configuration) as service:
        await CHECKS[title](service, block)


def test_block_that_is_a_test_passes(tmp_path: Path) -> None:
    (tmp_path / "block.py").write_text(BLOCKS["dependency_overrides"])
    command = [sys.executable, "-W", "error", str(tmp_path / "block.py")]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
