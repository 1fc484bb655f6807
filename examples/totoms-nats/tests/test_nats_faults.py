"""What goes wrong around NATS: servers that end, stop or refuse, and processes that do."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import Process
from totoms import CloudStorage, MessageBus, MessageDestination, SecretsManager, TotoEnvironment, TotoMessage
from totoms.errors import AccessDenied, MessageTooLarge, Unavailable
from totoms.messages.subscription import Subscription
from totoms_nats.clients import clients
from totoms_nats.configuration import NatsConfiguration
from totoms_nats.testing.server import NatsServer

POSTS = MessageDestination(topic="posts")
CONSUMER = Path(__file__).with_name("stopped_consumer.py")


def message(number: int = 0) -> TotoMessage:
    return TotoMessage(type="postCreated", data={"number": number})


async def subscribed(installation: Any) -> tuple[MessageBus, Subscription]:
    topic = installation.topic()
    bus, subscription = installation.bus(topic), installation.subscription(topic)
    await bus._subscribe(subscription, create=True)
    return bus, subscription


async def receive_all(bus: MessageBus, subscription: Subscription, count: int) -> dict[str, int]:
    """Receive and acknowledge, through outages, until `count` messages have come; their ids and last attempts."""
    seen: dict[str, int] = {}
    async with asyncio.timeout(120):
        while len(seen) < count:
            try:
                batch = await bus._receive(subscription, 100, 5)
                await bus._ack(batch)
            except Unavailable:
                continue
            seen |= {one.message_id: one.attempt for one in batch}
    return seen


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["ended", "killed"])
async def test_nothing_that_was_published_is_lost_when_the_server_goes_and_comes_back(
    installation: Any, how: int
) -> None:
    bus, subscription = await subscribed(installation)
    ids = await bus.publish_messages(POSTS, [message(number) for number in range(50)])
    held = await bus._receive(subscription, 10, 5)
    waiting = asyncio.create_task(receive_all(bus, subscription, 50))

    await asyncio.to_thread(installation.server.stop, how)
    try:
        with pytest.raises(Unavailable):
            async with asyncio.timeout(120):
                await bus.publish_message(POSTS, message())
    finally:
        await asyncio.to_thread(installation.server.start)

    assert set(ids) <= set(await waiting)
    assert len(held) == 10
    later = await bus.publish_message(POSTS, message())
    assert later in await receive_all(bus, subscription, 1)


async def test_publish_that_meets_a_restart_waits_for_it(installation: Any) -> None:
    bus, subscription = await subscribed(installation)
    await bus.publish_message(POSTS, message())
    await asyncio.to_thread(installation.server.stop)
    publishing = asyncio.create_task(bus.publish_messages(POSTS, [message(number) for number in range(20)]))
    await asyncio.sleep(0)
    await asyncio.to_thread(installation.server.start)

    results = await publishing
    assert all(isinstance(result, str) for result in results)
    assert set(results) <= set(await receive_all(bus, subscription, 21))


async def test_consumer_that_was_stopped_beyond_its_lease_settles_nothing(installation: Any, tmp_path: Path) -> None:
    bus, subscription = await subscribed(installation)
    arguments = (installation.server.url, installation.prefix, subscription.topic, subscription.name)
    consumer = Process(CONSUMER, *arguments, root=str(tmp_path))
    try:
        message_id = await bus.publish_message(POSTS, message())
        await asyncio.to_thread(consumer.expect, "received")
        consumer.send(signal.SIGSTOP)
        (again,) = await bus._receive(subscription, 1, 20)
        consumer.send(signal.SIGUSR1)
        consumer.send(signal.SIGCONT)
        await asyncio.to_thread(consumer.expect, "ack: LeaseLost")
        assert await asyncio.to_thread(consumer.wait) == 0
    finally:
        await asyncio.to_thread(consumer.kill)

    assert (again.message_id, again.attempt) == (message_id, 2)
    assert await bus._extend([again]) == [None]
    await bus._nack(again, 0.0)  # only a message that is still pending comes again
    (last,) = await bus._receive(subscription, 1, 20)
    assert (last.message_id, last.attempt) == (message_id, 3)


@pytest.mark.usefixtures("impatient")
def test_everything_is_unavailable_in_time_while_no_server_is_there() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        environment = TotoEnvironment("nats", NatsConfiguration(url=f"nats://127.0.0.1:{nobody.getsockname()[1]}"))
        for use in (
            lambda: CloudStorage("files", environment=environment).stat("a"),
            lambda: SecretsManager(environment).get_secret("a"),
        ):
            with pytest.raises(Unavailable):
                use()


@pytest.fixture
def guarded(nats_server: NatsServer, tmp_path: Path) -> Iterator[NatsServer]:
    """A server of its own, where `me` may do all and `reader` may not publish to the topic; messages of 10 kB."""
    (tmp_path / "config").write_text(
        'max_payload: 10000\nauthorization { users: [{user: me, password: "canary-1"}, {user: reader, password: '
        '"canary-2", permissions: {publish: {allow: ["$JS.API.>", "_INBOX.>"]}}}] }\n'
    )
    with NatsServer(tmp_path, arguments=("-c", str(tmp_path / "config"))) as server:
        yield server
        clients.close()


def settings(server: NatsServer, user: str, password: str) -> NatsConfiguration:
    return NatsConfiguration(url=server.url, user=user, password=password, prefix="guarded")


async def test_wrong_password_and_missing_permission_are_denied_without_naming_a_secret(guarded: NatsServer) -> None:
    wrong = TotoEnvironment("nats", settings(guarded, "me", "canary-3"))
    with pytest.raises(AccessDenied) as denied:
        await asyncio.to_thread(SecretsManager(wrong).get_secret, "a")
    assert "canary" not in f"{denied.value!r} {denied.value.__cause__!r} {wrong!r}"

    bus = MessageBus(TotoEnvironment("nats", settings(guarded, "reader", "canary-2")), {"posts": "posts"})
    try:
        with pytest.raises(AccessDenied):
            await bus.publish_message(POSTS, message())
    finally:
        await bus.close()


async def test_message_over_the_servers_own_limit_is_too_large(guarded: NatsServer) -> None:
    bus = MessageBus(TotoEnvironment("nats", settings(guarded, "me", "canary-1")), {"posts": "posts"})
    try:
        with pytest.raises(MessageTooLarge):
            await bus.publish_message(POSTS, TotoMessage(type="a", data="x" * 10_000))
    finally:
        await bus.close()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NATS_URL", "http://127.0.0.1"),
        ("NATS_URL", "nats://"),
        ("NATS_URL", "nats://me:canary@127.0.0.1"),
        ("NATS_PREFIX", "a.b"),
        ("NATS_REPLICAS", "0"),
        ("NATS_LEASE_SECONDS", "0"),
    ],
)
def test_wrong_setting_is_reported_by_its_variable_and_not_its_value(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from totoms import ConfigurationError

    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable) as error:
        TotoEnvironment("nats")
    assert "canary" not in str(error.value)


def test_several_servers_may_be_named_and_no_secret_is_shown() -> None:
    settings = NatsConfiguration(url="nats://one:4222, tls://two:4222", password="canary", token="canary")
    assert settings.servers == ["nats://one:4222", "tls://two:4222"]
    assert "canary" not in repr(settings) + str(settings)
