"""examples/blog as a newcomer meets it: as `make demo` starts it, and the lines that it prints."""

from __future__ import annotations

import hashlib
import hmac
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from support.demos import Demo, as_request, paste, start_demo
from totoms.auth.tokens import make_token


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start the demo; a second start finds what the first one stored."""
    started: list[Demo] = []
    (tmp_path / ".env").write_text("DIGEST_KEY=the key of the digest\n")

    def starting(**env: str) -> Demo:
        started.append(start_demo(tmp_path, **env))
        return started[-1]

    yield starting
    for demo in started:
        demo.kill()


def test_printed_lines_store_a_post_read_it_and_read_its_signed_digest(start: Callable[..., Demo]) -> None:
    demo = start()
    store, read, digest = demo.lines_to_paste

    slug = paste(store)["slug"]
    demo.expect(f"Added {slug} to the digest")
    post = paste(read)
    (entry,) = paste(digest)["entries"]

    assert post["slug"] == slug
    assert post["author"] == "me@example.com"
    signed = f"{slug}\n{post['title']}".encode()
    signature = hmac.new(b"the key of the digest", signed, hashlib.sha256).hexdigest()
    assert entry == {"slug": slug, "title": post["title"], "signature": signature}


def test_handler_logs_under_the_correlation_id_of_the_request(start: Callable[..., Demo]) -> None:
    demo = start()
    with demo.client as client:
        client.post("/blog/posts", json={"title": "One", "text": "1"}, headers={"x-correlation-id": "my-request"})

    assert "my-request" in demo.expect("Added one to the digest").string


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_posts_outlive_a_restart(start: Callable[..., Demo], sig: signal.Signals) -> None:
    demo = start()
    with demo.client as client:
        client.post("/blog/posts", json={"title": "Kept", "text": "for good"})
    demo.expect("Added kept to the digest")

    demo.send(sig)
    assert demo.wait() == 0
    assert "Traceback" not in demo.output

    with start().client as client:
        assert client.get("/blog/posts/kept").json()["text"] == "for good"
        assert [entry["slug"] for entry in client.get("/blog/digest").json()["entries"]] == ["kept"]


def test_killed_service_comes_back_and_takes_the_tokens_it_gave_out(start: Callable[..., Demo]) -> None:
    demo = start()
    headers = as_request(demo.lines_to_paste[0])["headers"]
    paste(demo.lines_to_paste[0])
    demo.kill()

    with start().client as client:
        client.headers = httpx.Headers(headers)
        assert client.post("/blog/posts", json={"title": "After", "text": "the kill"}).json() == {"slug": "after"}


def test_nonsense_is_refused_in_one_form_and_the_service_goes_on(start: Callable[..., Demo]) -> None:
    cases = {
        b'{"title": "Twice", "text": "x"}': 409,
        b'{"title": "???", "text": "x"}': 400,
        b'{"title": "No text"}': 422,
        b'{"title": 7, "text": []}': 422,
        b"nonsense": 422,  # as in FastAPI
        b"": 422,
        b"[" * 100_000: 422,
    }
    with start().client as client:
        client.post("/blog/posts", json={"title": "Twice", "text": "x"})
        for content, status in cases.items():
            answer = client.post("/blog/posts", content=content, headers={"Content-Type": "application/json"})
            assert (answer.status_code, content[:40]) == (status, content[:40])
            assert {"code", "message", "cid", "detail"} <= answer.json().keys()
        assert client.get("/blog/posts/no-such-post").status_code == 404
        assert client.get("/blog/posts/twice").status_code == 200


def test_caller_without_a_token_is_refused(start: Callable[..., Demo]) -> None:
    with start().client as client:
        del client.headers["Authorization"]
        answer = client.get("/blog/digest")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_caller_who_is_not_an_author_may_read_and_not_write(start: Callable[..., Demo]) -> None:
    key = "a signing key for the tests of the blog"
    with start(JWT_SIGNING_KEY=key).client as client:
        client.post("/blog/posts", json={"title": "Mine", "text": "x"})
        client.headers["Authorization"] = f"Bearer {make_token(key, 'reader@example.com')}"
        assert client.get("/blog/posts/mine").status_code == 200
        refused = client.post("/blog/posts", json={"title": "Not mine", "text": "x"})
        assert refused.status_code == 403
        assert client.get("/blog/posts/not-mine").status_code == 404


def test_ready_names_the_cache(start: Callable[..., Demo]) -> None:
    with start().client as client:
        assert client.get("/ready").json()["checks"] == {"cache_answers": "ok"}


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"BACKEND": "mars"}, r"BACKEND=mars is not known: choose one of .*local, nats\."),
        ({"EXAMPLE": "shop"}, r"EXAMPLE=shop is not known: choose one of blog, orders\."),
        ({"PORT": "many"}, r"PORT must be a number"),
        ({"PORT": "0"}, r"PORT must be a number"),
    ],
)
def test_demo_that_cannot_start_says_why_in_one_line(
    start: Callable[..., Demo], env: dict[str, str], told: str
) -> None:
    demo = start(**env)

    assert demo.wait() == 1
    assert re.match(told, demo.output)
    assert len(demo.output.splitlines()) == 1


def test_port_in_use_is_one_line_with_a_way_out(start: Callable[..., Demo]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        demo = start(PORT=str(taken.getsockname()[1]))
        assert demo.wait() == 1
    assert re.fullmatch(r"Port \d+ is not available: .* make demo PORT=8081\n?", demo.output)


def test_first_start_makes_the_secret_and_later_ones_keep_it(start: Callable[..., Demo], tmp_path: Path) -> None:
    (tmp_path / ".env").unlink()
    start().expect("Ctrl-C stops")
    made = (tmp_path / ".env").read_text()

    start().expect("Ctrl-C stops")

    assert re.fullmatch(r"DIGEST_KEY=[0-9a-f]{64}\n", made)
    assert (tmp_path / ".env").read_text() == made
