"""``/docs`` and ``/redoc`` load everything from the service, where the extra ``docs`` is installed."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import pytest

from support.http.app import Log, Service, make_service, token
from totoms.http import documentation

PAGES = ["/docs", "/redoc"]


def offline(**options: Any) -> Service:
    if documentation.assets() is None:
        pytest.skip("not installed: the extra docs")
    return make_service(**options)


@pytest.mark.parametrize("prefix", ["", "/proxied"])
@pytest.mark.parametrize("page", PAGES)
async def test_page_loads_nothing_from_elsewhere(page: str, prefix: str) -> None:
    service = offline(docs=True)
    service.app.root_path = prefix
    async with service.client() as client:
        text = (await client.get(page)).text
        linked = re.findall(r"""(?:src|href|spec-url)=["']([^"']+)["']|url: ['"]([^'"]+)['"]""", text)
        addresses = [one or other for one, other in linked]
        assert len(addresses) >= 3
        for address in addresses:
            assert address.startswith(f"{prefix}/")
            answer = await client.get(address.removeprefix(prefix))
            assert answer.status_code == 200, address
            assert len(answer.content) > 100
    assert "https://" not in text
    if page == "/docs":
        assert f"'{prefix}/docs/oauth2-redirect'" in text.replace('"', "'")


async def test_files_are_as_closed_as_the_pages() -> None:
    service = offline(docs=False)
    paths = [route.path for route in service.app.routes if route.path.startswith(("/docs", "/redoc"))]  # type: ignore[attr-defined]
    assert len(paths) == 7
    for path in paths:
        async with service.client() as client:
            assert (await client.get(path)).status_code == 401, path
        async with service.client(token()) as client:
            assert (await client.get(path)).status_code == 200, path


async def test_open_documentation_is_not_worth_a_warning(log: Log) -> None:
    offline(docs=True)
    (record,) = log.records()
    assert record["severity"] == "INFO"


@pytest.mark.parametrize("missing", ["distribution", "file"])
async def test_without_the_files_the_pages_are_fastapis(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None if missing == "distribution" else Spec)
    async with make_service(docs=True).client() as client:
        for page in PAGES:
            answer = await client.get(page)
            assert (answer.status_code, "https://" in answer.text) == (200, True)
