"""`make demo BACKEND=nats`: the same blog on a nats-server of its own."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.demos import Demo, paste, start_demo
from support.emulators import require


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Demo]]:
    require("nats-server", remedy="apt-get install nats-server")
    started: list[Demo] = []

    def starting() -> Demo:
        started.append(start_demo(tmp_path, BACKEND="nats"))
        return started[-1]

    yield starting
    for demo in started:
        demo.send(signal.SIGTERM)  # it ends its server; killed, it could not
        demo.wait()
        demo.kill()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_printed_lines_work_and_what_they_stored_outlives_a_restart(
    start: Callable[[], Demo], sig: signal.Signals
) -> None:
    demo = start()
    store, read, digest = demo.lines_to_paste
    slug = paste(store)["slug"]
    demo.expect(f"Added {slug} to the digest")
    post, (entry,) = paste(read), paste(digest)["entries"]
    assert (post["slug"], entry["slug"]) == (slug, slug)

    demo.send(sig)
    assert demo.wait() == 0
    assert "Traceback" not in demo.output

    with start().client as client:
        assert client.get(f"/blog/posts/{slug}").json() == post
        assert client.get("/blog/digest").json()["entries"] == [entry]
