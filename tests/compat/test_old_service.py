"""A service written for totoms 1.5.0, started unchanged as a process on the local backend."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from support.processes import Process
from totoms.local.messages.push import push_token

SERVICE = Path(__file__).parents[1] / "support/services/of_1_5.py"
KEY = "a-key-of-a-service-of-its-time-0123456789"
SECRETS = {
    "JWT_SIGNING_KEY": KEY,
    "BLOG_API_KEY": "canary-api-key",
    "MONGO_HOST": "mongo.example",
    "BLOG_MONGO_USER": "blogger",
    "BLOG_MONGO_PSWD": "canary-password",
}


def token_of_its_time(user: str = "me@example.com") -> str:
    return jwt.encode({"user": user, "authProvider": "toto", "exp": int(time.time()) + 600}, KEY, algorithm="HS256")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def service(root: Path) -> Iterator[Process]:
    process = Process(SERVICE, root=str(root), env={**SECRETS, "HYPERSCALER": "local", "PORT": "0"})
    yield process
    process.kill()


@pytest.fixture
def client(service: Process) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {token_of_its_time()}", "x-correlation-id": "cid-1"}
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port()}", headers=headers, timeout=120) as client:
        yield client


@pytest.fixture
def stranger(service: Process) -> Iterator[httpx.Client]:
    """A client without a token and without a correlation id."""
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port()}", timeout=120) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/health"])
def test_health_is_answered_outside_the_base_path_and_without_a_token(
    client: httpx.Client, stranger: httpx.Client, path: str
) -> None:
    answer = stranger.get(path)

    assert answer.status_code == 200
    assert answer.json().items() >= {"status": "ok", "apiName": "toto-ms-blog", "message": "Service is running"}.items()
    assert client.get(f"/blog{path}").status_code == 404


def test_path_and_query_parameters_user_and_cid(client: httpx.Client) -> None:
    answer = client.get("/blog/posts/p1", params={"lang": "it"})

    assert answer.json() == {"id": "p1", "lang": "it", "user": "me@example.com", "cid": "cid-1"}
    assert answer.headers["x-correlation-id"] == "cid-1"


def test_dataclass_model_and_response_are_served(client: httpx.Client) -> None:
    assert client.get("/blog/summary").json() == {"posts": 1, "titles": ["first"]}
    assert client.get("/blog/preview").json() == {"title": "first", "words": 3}
    raw = client.get("/blog/raw")
    assert (raw.status_code, raw.text) == (201, "raw text")


def test_file_of_a_form_is_stored(client: httpx.Client, tmp_path: Path) -> None:
    answer = client.post(
        "/blog/uploads", files={"file": ("hello.txt", b"Hello")}, data={"scratch": str(tmp_path / "scratch")}
    )

    assert answer.json() == {
        "name": "hello.txt",
        "files": ["uploads/hello.txt"],
        "content": "Hello",
        "missing": None,
    }


def test_published_message_reaches_the_handler(client: httpx.Client) -> None:
    assert client.post("/blog/posts", json={"title": "first"}).json() == {"published": True}

    assert client.get("/blog/seen").json() == {
        "cid": "cid-1",
        "id": "post-1",
        "title": "first",
        "hyperscaler": "local",
        "apiKey": True,
        "bus": True,
    }


def test_validation_error_is_400_with_the_detail_that_its_clients_read(client: httpx.Client) -> None:
    answer = client.post("/blog/posts", json={})

    assert answer.status_code == 400
    assert answer.json() == {"code": 400, "message": "Missing title", "cid": "cid-1", "detail": "Missing title"}


@pytest.mark.parametrize("authorization", [None, "Bearer x", "Basic eDp5", "Bearer"])
def test_caller_without_a_token_is_401(stranger: httpx.Client, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}

    answer = stranger.get("/blog/summary", headers=headers)

    assert answer.status_code == 401
    assert answer.json()["code"] == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_correlation_id_is_made_when_it_is_missing(client: httpx.Client, stranger: httpx.Client) -> None:
    answer = stranger.get("/blog/summary", headers={"Authorization": client.headers["Authorization"]})

    assert answer.status_code == 200
    assert answer.headers["x-correlation-id"]


def test_excluded_path_is_open(stranger: httpx.Client) -> None:
    assert stranger.get("/blog/open").json() == {"open": True}


def test_mongo_secrets_secrets_manager_and_service_token(client: httpx.Client) -> None:
    assert client.get("/blog/settings").json() == {
        "mongo": ["mongo.example", "blogger", "canary-password"],
        "secret": True,
        "key": True,
        "serviceToken": 2,
        "cloud": False,
    }


def test_events_endpoint_is_below_the_base_path_and_requires_authentication(stranger: httpx.Client) -> None:
    body = '{"timestamp":"","cid":"c","id":"i","type":"postCreated","msg":"","data":{"title":"forged"}}'
    refused = stranger.post("/blog/events", content=body, headers={"content-type": "text/plain"})

    assert refused.status_code in (401, 403)
    assert stranger.post("/events", content=body).status_code == 404


def push(client: httpx.Client, root: Path, data: str) -> httpx.Response:
    headers = {
        "authorization": f"Bearer {push_token(root)}",
        "x-totoms-topic": "posts",
        "content-type": "text/plain; charset=UTF-8",
    }
    body = f'{{"timestamp":"","cid":"cid-2","id":"post-2","type":"postCreated","msg":"","data":{data}}}'
    return client.post("/blog/events", content=body, headers=headers)


def test_pushed_message_sent_as_plain_text_is_handled(client: httpx.Client, stranger: httpx.Client, root: Path) -> None:
    answer = push(stranger, root, '{"title":"second"}')

    assert (answer.status_code, answer.json()) == (200, {"status": "success"})
    seen = client.get("/blog/seen").json()
    assert (seen["cid"], seen["title"]) == ("cid-2", "second")


def test_failed_handler_answers_a_push_with_500_so_that_it_comes_again(stranger: httpx.Client, root: Path) -> None:
    assert push(stranger, root, '{"fail":true}').status_code == 500


def test_secrets_and_tokens_are_in_no_log_line(service: Process, client: httpx.Client) -> None:
    client.get("/blog/settings")
    service.expect("Getting a post|Blog configuration loaded")

    for secret in ("canary-api-key", "canary-password", KEY, client.headers["Authorization"].split(".")[-1]):
        assert secret not in service.output


def test_generated_spelling_of_mongo_secret_names_and_a_clean_stop(tmp_path: Path) -> None:
    variables: dict[str, Any] = {**SECRETS, "HYPERSCALER": "local", "PORT": "0", "BLOG_SPELLING": "generated"}
    process = Process(SERVICE, root=str(tmp_path), env=variables)
    try:
        port = process.port()
        answer = httpx.get(
            f"http://127.0.0.1:{port}/blog/settings", headers={"Authorization": f"Bearer {token_of_its_time()}"}
        )
        assert answer.json()["mongo"] == ["mongo.example", "blogger", "canary-password"]
        process.send(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        process.kill()


def test_missing_mongo_secret_ends_the_start_with_its_name(tmp_path: Path) -> None:
    variables = {**SECRETS, "HYPERSCALER": "local", "PORT": "0", "MONGO_HOST": ""}
    process = Process(SERVICE, root=str(tmp_path), env=variables)
    try:
        assert process.wait() == 2
        assert "mongo-host" in process.output
        assert "Traceback" not in process.output
    finally:
        process.kill()


def test_without_hyperscaler_it_wants_aws_as_1_5_did(tmp_path: Path) -> None:
    nobody = {"AWS_PROFILE": "nobody", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    process = Process(SERVICE, root=str(tmp_path), env={**SECRETS, **nobody})
    try:
        assert process.wait() == 2
        assert "There are no AWS credentials for the secret 'jwt-signing-key'" in process.output
        assert "Traceback" not in process.output
    finally:
        process.kill()
