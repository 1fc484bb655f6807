"""A subscription that is deleted while a service runs: created again, waited for, or the end of the process."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from standins.ports import free_port
from support.processes import Process
from totoms import (
    ConfigurationError,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    TotoEnvironment,
    TotoMessage,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    toto_handler,
)
from totoms.http.lifespan import Lifespan
from totoms.local.configuration import LocalConfiguration
from totoms.testing import TestMicroservice

DEADLINE = 120.0
BLOG = Path(__file__).parents[1] / "support/services/blog.py"


class Handled:
    """Messages that the handler got."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.news = asyncio.Event()

    async def until(self, *ids: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while self.ids != list(ids):
                self.news.clear()
                await self.news.wait()


async def service(root: Path, handled: Handled, **bus: Any) -> TotoMicroservice:
    @toto_handler(type="postCreated")
    async def handle(message: TotoMessage) -> None:
        handled.ids.append(message.id)
        handled.news.set()

    declared = MessageBusConfig(
        topics=[MessageBusTopicConfig(logical_name="posts", secret="posts-topic")],
        message_handlers=[MessageBusHandlerConfig(handler=handle)],
        **bus,
    )
    environment = TotoEnvironment("local", LocalConfiguration(root=root))
    configuration = TotoMicroserviceConfiguration(
        service_name="blog", environment=environment, message_bus_configuration=declared, shutdown_grace=0.0
    )
    return await TotoMicroservice.create(configuration)


def delete_subscription(root: Path) -> None:
    with contextlib.closing(sqlite3.connect(root / "bus.sqlite3", timeout=DEADLINE)) as connection:
        connection.execute("DELETE FROM subscriptions")
        connection.commit()


async def publish(blog: TotoMicroservice, name: str) -> None:
    await blog.message_bus.publish_message(MessageDestination(topic="posts"), TotoMessage(type="postCreated", id=name))


async def until_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(DEADLINE):
        while text not in caplog.text:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("declared", [{}, {"vanished_subscriptions": "create"}])
async def test_subscription_is_created_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, declared: dict[str, Any]
) -> None:
    handled = Handled()
    blog = await service(tmp_path, handled, **declared)
    lifespan = Lifespan(blog.app)
    await lifespan.start()
    try:
        await publish(blog, "before")
        await handled.until("before")
        delete_subscription(tmp_path)
        await until_logged(caplog, "The subscription blog-posts had vanished and exists again.")
        await publish(blog, "after")
        await handled.until("before", "after")
    finally:
        await lifespan.stop()
    (record,) = [one for one in caplog.records if "exists again" in one.getMessage()]
    assert record.levelname == "WARNING"


async def test_service_that_may_not_create_waits_for_the_subscription(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    operator = await service(tmp_path, Handled())
    lifespan = Lifespan(operator.app)
    await lifespan.start()
    await lifespan.stop()
    handled = Handled()
    blog = await service(tmp_path, handled, create_subscriptions=False)
    lifespan = Lifespan(blog.app)
    await lifespan.start()
    try:
        delete_subscription(tmp_path)
        await until_logged(caplog, "Cannot receive from blog-posts: There is no subscription 'blog-posts'")
        assert blog.state == "ready"
        operator = await service(tmp_path, Handled())
        operating = Lifespan(operator.app)
        await operating.start()
        await operating.stop()
        await until_logged(caplog, "The subscription blog-posts had vanished and exists again.")
        await publish(blog, "after")
        await handled.until("after")
    finally:
        await lifespan.stop()


async def test_process_ends_with_an_error_where_that_is_declared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blog = await service(tmp_path, Handled(), vanished_subscriptions="exit")
    serving = asyncio.create_task(blog.start(port=0))
    async with asyncio.timeout(DEADLINE):
        while blog.state != "ready":
            await asyncio.sleep(0.01)
    delete_subscription(tmp_path)
    with pytest.raises(ConfigurationError, match="blog stops: the subscription 'blog-posts' vanished"):
        async with asyncio.timeout(DEADLINE):
            await serving
    assert blog.state == "stopped"
    (record,) = [one for one in caplog.records if "blog stops" in one.getMessage()]
    assert record.levelname == "ERROR"


async def test_other_server_is_ended_by_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blog = await service(tmp_path, Handled(), vanished_subscriptions="exit")
    ended = asyncio.Event()
    monkeypatch.setattr(blog, "_end_process", ended.set)
    lifespan = Lifespan(blog.app)
    await lifespan.start()
    delete_subscription(tmp_path)
    async with asyncio.timeout(DEADLINE):
        await ended.wait()
    await lifespan.stop()


async def test_service_under_test_drains_and_the_process_goes_on() -> None:
    declared = MessageBusConfig(
        topics=[MessageBusTopicConfig(logical_name="posts", secret="posts-topic")], vanished_subscriptions="exit"
    )
    configuration = TotoMicroserviceConfiguration(service_name="blog", message_bus_configuration=declared)
    async with TestMicroservice(configuration) as tested:
        messaging = tested.microservice._messaging
        assert messaging is not None
        messaging.end("as the test says")
        messaging.end("again")
        assert tested.microservice.state == "draining"


def test_process_exits_with_status_2_and_one_line(local_root: str) -> None:
    process = Process(BLOG, root=local_root, env={"BLOG_EXITS": "1", "PORT": "0"})
    try:
        process.port()
        delete_subscription(Path(local_root))
        assert process.wait() == 2
        assert "closed by" in process.output, "it did not drain"
        process.expect("^totoms: blog stops: the subscription 'blog-posts' vanished")
        assert "Traceback" not in process.output
    finally:
        process.kill()


def test_process_of_another_server_exits_with_an_error(local_root: str) -> None:
    arguments = ["--factory", "--app-dir", str(BLOG.parent), "blog:app", "--port", str(free_port())]
    process = Process("-m", "uvicorn", *arguments, root=local_root, env={"BLOG_EXITS": "1"})
    try:
        process.expect("Application startup complete")
        delete_subscription(Path(local_root))
        assert process.wait() != 0
        process.expect("blog stops: the subscription 'blog-posts' vanished")
        assert "closed by" in process.output, "it did not drain"
    finally:
        process.kill()
