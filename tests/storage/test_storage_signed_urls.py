"""Signed URLs of the local backend: answered by the service, for exactly what was signed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from support.http.app import Log, Service
from support.processes import Process
from totoms.auth.authenticator import Authenticator
from totoms.declaration.api import APIConfiguration
from totoms.declaration.service import TotoMicroserviceConfiguration
from totoms.environment import TotoEnvironment
from totoms.http.app import create_app
from totoms.local.storage import signed_urls
from totoms.storage.storage import CloudStorage
from totoms.testing import TestMicroservice

MIB = 1024 * 1024
CONTENT = bytes(range(256))
BLOG = Path(__file__).parents[1] / "support/services/blog.py"


def make_client(limit: int = MIB) -> httpx.AsyncClient:
    """A client of a service on this test's folder that takes bodies of `limit` bytes."""
    service = Service(environment=TotoEnvironment("local"))
    api = APIConfiguration(max_body_bytes=limit)
    service.authenticator = Authenticator(service.config, api)
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_app(service, api, "/base")))


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with make_client() as client:
        yield client


async def test_a_file_is_downloaded_by_anybody_who_has_the_url(
    storage: CloudStorage, client: httpx.AsyncClient
) -> None:
    key = "a b/ü?#&%2e+=//.txt"
    etag = storage.upload_bytes(CONTENT, key, content_type="text/x-mine")
    answer = await client.get(storage.signed_url(key))
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-type"] == "text/x-mine"
    assert answer.headers["etag"] == f'"{etag}"'
    assert answer.headers["content-length"] == "256"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox"


async def test_a_file_is_uploaded_by_anybody_who_has_the_url(storage: CloudStorage, client: httpx.AsyncClient) -> None:
    url = storage.signed_url("up", "PUT", content_type="text/x-mine")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield CONTENT

    answer = await client.put(url, content=chunks(), headers={"content-type": "text/x-mine"})
    info = storage.stat("up")
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (200, b"", f'"{info.etag}"')
    assert (info.content_type, info.size) == ("text/x-mine", 1024)
    assert storage.get_file_bytes("up") == CONTENT * 4


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=10-19", 206, slice(10, 20)),
        ("bytes=250-", 206, slice(250, None)),
        ("bytes=-6", 206, slice(-6, None)),
        ("bytes=-999", 206, slice(None)),
        ("bytes=250-999", 206, slice(250, None)),
        ("bytes=256-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=5-4", 416, None),
        ("bytes=0-1,3-4", 200, slice(None)),
        ("bytes=-", 200, slice(None)),
        ("lines=1-2", 200, slice(None)),
        ("bytes=" + "9" * 19 + "-", 200, slice(None)),
    ],
)
async def test_a_range_is_answered_as_http_has_it(
    storage: CloudStorage, client: httpx.AsyncClient, wanted: str, status: int, part: slice | None
) -> None:
    storage.upload_bytes(CONTENT, "key")
    answer = await client.get(storage.signed_url("key"), headers={"range": wanted})
    assert answer.status_code == status
    if part is None:
        assert answer.headers["content-range"] == "bytes */256"
        return
    assert answer.content == CONTENT[part]
    assert answer.headers["content-length"] == str(len(answer.content))
    if status == 206:
        first = CONTENT[part][0]
        assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.content) - 1}/256"


async def test_a_range_of_another_version_is_the_whole_file(storage: CloudStorage, client: httpx.AsyncClient) -> None:
    etag = storage.upload_bytes(CONTENT, "key")
    url = storage.signed_url("key")
    same = await client.get(url, headers={"range": "bytes=1-2", "if-range": f'"{etag}"'})
    other = await client.get(url, headers={"range": "bytes=1-2", "if-range": '"another"'})
    assert (same.content, other.content) == (CONTENT[1:3], CONTENT)


async def test_a_file_that_is_not_there_is_404(storage: CloudStorage, client: httpx.AsyncClient) -> None:
    answer = await client.get(storage.signed_url("missing"))
    assert answer.status_code == 404
    assert set(answer.json()) == {"code", "message", "cid", "detail"}


def forgeries(url: str) -> Iterator[tuple[str, str]]:
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    changes = {
        "bucket": "other-bucket",
        "key": "other",
        "method": "PUT",
        "expires": str(int(query["expires"]) + 1),
        "content_type": "text/html",
        "signature": "0" * 64,
    }
    for name, value in changes.items():
        yield name, url.replace(parts.query, urlencode({**query, name: value}))
        yield f"without {name}", url.replace(parts.query, urlencode({n: v for n, v in query.items() if n != name}))
    yield "a field twice", url + "&key=other"
    yield "a field more", url + "&more=1"
    yield "reordered", url.replace(parts.query, urlencode(dict(reversed(query.items()))))
    yield "no query", url.partition("?")[0]
    yield "signature that is no ASCII", url[:-1] + "%C3%BC"
    yield "no UTF-8", url.replace("key=key", "key=%ff")
    yield "long", url + "0" * 20_000


async def test_what_was_not_signed_is_refused_with_the_usual_body(
    storage: CloudStorage, client: httpx.AsyncClient, local_root: str
) -> None:
    storage.upload_bytes(CONTENT, "key")
    storage.upload_bytes(b"private", "other")
    url = storage.signed_url("key")
    for what, forged in forgeries(url):
        for method in ("GET", "PUT"):
            answer = await client.request(method, forged, headers={"content-type": "text/html"})
            assert answer.status_code == 403, (what, method)
            assert set(answer.json()) == {"code", "message", "cid", "detail"}
    assert (await client.get(url)).content == CONTENT
    assert os.listdir(Path(local_root) / "storage") == ["my-bucket"]


async def test_a_url_is_good_for_its_method_and_content_type_only(
    storage: CloudStorage, client: httpx.AsyncClient
) -> None:
    storage.upload_bytes(CONTENT, "key")
    download, upload = storage.signed_url("key"), storage.signed_url("key", "PUT", content_type="text/plain")
    assert (await client.put(download, content=b"new")).status_code == 403
    assert (await client.get(upload)).status_code == 403
    assert (await client.head(download)).status_code == 403
    assert (await client.delete(download)).status_code == 405
    for headers in ({}, {"content-type": "text/html"}, {"content-type": "text/plain; charset=utf-8"}):
        assert (await client.put(upload, content=b"new", headers=headers)).status_code == 403
    assert storage.get_file_bytes("key") == CONTENT


async def test_a_url_of_another_folder_is_refused(
    storage: CloudStorage, client: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.upload_bytes(CONTENT, "key")
    monkeypatch.setenv("TOTOMS_LOCAL_ROOT", str(tmp_path))
    assert (await client.get(CloudStorage("my-bucket").signed_url("key"))).status_code == 403


async def test_a_url_expires(storage: CloudStorage, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.upload_bytes(CONTENT, "key")
    now = 1_000_000.5
    monkeypatch.setattr(signed_urls, "_clock", lambda: now)
    url = storage.signed_url("key", expires_in=60)
    now += 60
    assert (await client.get(url)).status_code == 200
    now += 0.5
    answer = await client.get(url)
    assert (answer.status_code, answer.json()["message"]) == (403, "This signed URL has expired.")


async def test_a_body_over_the_limit_leaves_what_was_there(storage: CloudStorage, bucket_folder: Path) -> None:
    storage.upload_bytes(b"old", "key")
    url = storage.signed_url("key", "PUT", content_type="text/plain")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield bytes(128)

    async with make_client(limit=1024) as client:
        for content in (bytes(1025), chunks()):
            answer = await client.put(url, content=content, headers={"content-type": "text/plain"})
            assert answer.status_code == 413
        assert storage.get_file_bytes("key") == b"old"
        assert os.listdir(bucket_folder / "incoming") == []
        assert (await client.put(url, content=bytes(1024), headers={"content-type": "text/plain"})).status_code == 200


async def test_neither_the_log_nor_an_answer_has_the_signature(
    storage: CloudStorage, client: httpx.AsyncClient
) -> None:
    storage.upload_bytes(CONTENT, "key")
    url = storage.signed_url("key")
    signature = url.rpartition("=")[2]
    with Log().collecting() as log:
        told = [await client.get(url), await client.put(url), await client.get(url.replace("key=key", "key=x"))]
    assert [answer.status_code for answer in told] == [200, 403, 403]
    assert "GET /_files 200" in log.text
    assert signature not in log.text + "".join(answer.text for answer in told)


def test_the_address_is_the_services_own(storage: CloudStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.signed_url("key").startswith("http://127.0.0.1:8080/_files?")
    monkeypatch.setenv("PORT", "8081")
    assert storage.signed_url("key").startswith("http://127.0.0.1:8081/_files?")
    monkeypatch.setenv("SERVICE_BASE_URL", "https://me.example.com/")
    assert storage.signed_url("key").startswith("https://me.example.com/_files?")


async def test_a_service_under_test_serves_them_in_memory() -> None:
    async with TestMicroservice(TotoMicroserviceConfiguration(service_name="tested")) as service:
        storage = service.files("my-bucket")
        await storage.upload_bytes_async(CONTENT, "key")
        answer = await service.client_of(None).get(await storage.signed_url_async("key"))
        assert (answer.status_code, answer.content) == (200, CONTENT)


@pytest.mark.parametrize("address", ["http://localhost", "http://localhost/blog"])
async def test_the_services_address_may_have_the_base_path_in_it(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_BASE_URL", address)
    async with TestMicroservice(TotoMicroserviceConfiguration("tested", base_path="/blog")) as service:
        storage = service.files("my-bucket")
        await storage.upload_bytes_async(CONTENT, "key")
        url = await storage.signed_url_async("key")
        assert url.startswith(f"{address}/_files?")
        assert (await service.client_of(None).get(url)).content == CONTENT


def test_the_path_is_there_only_where_the_backend_has_it() -> None:
    service = Service()
    service.authenticator = Authenticator(service.config, APIConfiguration())
    app = create_app(service, APIConfiguration())
    assert "/_files" not in {getattr(route, "path", "") for route in app.routes}


def test_a_service_loads_nothing_of_the_files_before_they_are_used() -> None:
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from support.http.app import Service
from totoms import *
from totoms.http.app import create_app
from totoms.auth.authenticator import Authenticator
service = Service(environment=TotoEnvironment("local"))
service.authenticator = Authenticator(service.config, APIConfiguration())
app = create_app(service, APIConfiguration())
assert "/_files" in [getattr(route, "path", "") for route in app.routes]
print(*sys.modules)
"""
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert "totoms.storage.storage" in loaded
    assert not {"totoms.local.storage.storage", "totoms.local.storage.signed_urls"} & set(loaded)


def test_over_real_sockets_and_processes(local_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Process(BLOG, root=local_root)
    try:
        monkeypatch.setenv("PORT", str(service.port()))
        script = "from totoms import CloudStorage; print(CloudStorage('my-bucket').signed_url('big', 'PUT', 60))"
        # Signed by a process that serves nothing, such as a worker's.
        url = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()
        content = os.urandom(3 * MIB)
        headers = {"content-type": "application/octet-stream"}
        assert httpx.put(url, content=content, headers=headers).status_code == 200
        storage = CloudStorage("my-bucket")
        assert storage.get_file_bytes("big") == content
        answer = httpx.get(storage.signed_url("big"), headers={"range": f"bytes={MIB}-"})
        assert (answer.status_code, answer.content) == (206, content[MIB:])
    finally:
        service.kill()
