"""docs/how-to/outbox.md: what is in the database is published, also by the next process, and never lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.pages import run
from totoms.environment import scope_environment
from totoms.testing import TestMicroservice

sqlalchemy = pytest.importorskip("sqlalchemy", reason="not installed: nox -s tests does")
PAGE = "how-to/outbox.md"


def stopped_relay(page: Any) -> Any:
    """The configuration class, whose loop publishes nothing: as if the process ended before it could."""

    class Stopped(page.OrdersConfig):  # type: ignore[misc]
        async def publish_what_waits(self) -> None: ...

    return Stopped


async def test_message_is_published_by_the_next_process(tmp_path: Path) -> None:
    page = run(PAGE)
    secrets = {"database-url": f"sqlite+aiosqlite:///{tmp_path}/orders.db"}
    stopped = page.configuration.model_copy(update={"custom_config": stopped_relay(page)})
    async with TestMicroservice(stopped, secrets=secrets) as service:
        assert (await service.client.post("/orders", params={"order": "o-1"})).status_code == 201
        assert service.published == []
    async with TestMicroservice(page.configuration, secrets=secrets) as service:
        with scope_environment(service.environment):  # as in the loop, which begins in `load`
            await service.microservice.config.publish_batch()
        assert [message.data for message in service.published] == [page.OrderPlaced(order="o-1")]
        async with service.microservice.config.sessions() as session:
            assert list(await session.scalars(sqlalchemy.select(page.Waiting))) == []


async def test_message_that_could_not_be_published_waits_with_its_id(tmp_path: Path) -> None:
    page = run(PAGE)
    secrets = {"database-url": f"sqlite+aiosqlite:///{tmp_path}/orders.db"}
    stopped = page.configuration.model_copy(update={"custom_config": stopped_relay(page)})
    async with TestMicroservice(stopped, secrets=secrets) as service:
        await service.client.post("/orders", params={"order": "o-1"})
        config, bus = service.microservice.config, service.microservice.message_bus
        publish = bus.publish_message

        async def published_and_then_killed(*arguments: Any, **more: Any) -> None:
            await publish(*arguments, **more)
            raise ConnectionError("killed before the commit")

        bus.publish_message = published_and_then_killed  # type: ignore[method-assign,assignment]
        with scope_environment(service.environment):
            with pytest.raises(ConnectionError):
                await config.publish_batch()
            bus.publish_message = publish  # type: ignore[method-assign]
            await config.publish_batch()
        first, second = service.published
        assert first.id == second.id
