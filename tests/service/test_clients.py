"""Clients that the services of a process share."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.services.blog import configuration
from totoms import TotoMicroservice
from totoms.clients import ClientRegistry


class Client:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_client_is_made_once_for_all_threads() -> None:
    registry, made, together = ClientRegistry(), list[Client](), threading.Barrier(8)

    def make() -> Client:
        made.append(Client())
        return made[-1]

    def get(_number: int) -> Client:
        together.wait(60)
        return registry.get("one", make)

    with ThreadPoolExecutor(8) as pool:
        got = set(pool.map(get, range(8)))
    assert got == set(made)
    assert len(made) == 1
    assert registry.get("another", make) is not made[0]


def test_find_returns_a_client_that_is_made_and_makes_none() -> None:
    registry = ClientRegistry()
    assert registry.find("one") is None
    made = registry.get("one", Client)
    assert registry.find("one") is made
    registry.close()
    assert registry.find("one") is None


def test_failed_make_is_tried_again() -> None:
    registry, answers = ClientRegistry(), iter([OSError("away"), None])

    def make() -> Client:
        if (error := next(answers)) is not None:
            raise error
        return Client()

    with pytest.raises(OSError, match="away"):
        registry.get("one", make)
    assert isinstance(registry.get("one", make), Client)


def test_closed_registry_closes_each_in_its_way_and_makes_new_ones() -> None:
    registry, ended = ClientRegistry(), list[Client]()
    one, other = registry.get("one", Client), registry.get("other", Client, ended.append)
    registry.close()
    assert (one.closed, ended) == (1, [other])
    assert registry.get("one", Client) is not one
    registry.close()
    assert one.closed == 1


def test_client_that_does_not_close_is_logged_and_the_others_are_closed(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_client: Client) -> None:
        raise OSError("stuck")

    registry = ClientRegistry()
    registry.get("one", Client, fail)
    other = registry.get("other", Client)
    registry.close()
    assert other.closed == 1
    assert "Client did not close: OSError: stuck" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_forked_child_makes_clients_of_its_own() -> None:
    registry = ClientRegistry()
    parents = registry.get("one", Client)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"own" if registry.get("one", Client) is not parents else b"the parent's")
        os._exit(0)
    os.close(writing)
    assert os.waitpid(child, 0)[1] == 0
    with os.fdopen(reading, "rb") as answer:
        assert answer.read() == b"own"
    assert registry.get("one", Client) is parents


async def test_clients_are_closed_when_the_last_service_of_the_process_has_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = ClientRegistry()
    monkeypatch.setattr(TotoMicroservice, "_by_environment", {})
    first = await TotoMicroservice.create(configuration())
    second = await TotoMicroservice.create(configuration())
    client = registry.get("one", Client)
    await first.stop()
    assert client.closed == 0
    await second.stop()
    assert client.closed == 1
