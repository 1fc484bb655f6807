"""docs/how-to/idempotent-handlers.md: each handler runs twice without harm."""

from __future__ import annotations

from support.pages import run
from totoms import MessageBusConfig, MessageBusHandlerConfig, MessageBusTopicConfig, TotoMicroserviceConfiguration
from totoms.testing import TestMicroservice

PAGE = "how-to/idempotent-handlers.md"


async def test_second_delivery_writes_the_same_invoice() -> None:
    page = run(PAGE)
    async with TestMicroservice(page.configuration) as service:
        for _ in range(2):
            result = await service.deliver(page.OrderPlaced(order="o-1", amount=7), topic="orders")
            assert result.succeeded
        invoices = service.files("invoices")
        assert await invoices.list_files_async() == ["invoices/o-1.txt"]
        assert await invoices.get_file_content_async("invoices/o-1.txt") == "Order o-1: 7 EUR\n"


async def test_what_was_created_first_stays() -> None:
    page = run(PAGE, 1)
    configuration = TotoMicroserviceConfiguration(
        service_name="letters",
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="accounts", secret="accounts-topic")],
            message_handlers=[MessageBusHandlerConfig(handler=page.welcome, topic="accounts")],
        ),
    )
    async with TestMicroservice(configuration) as service:
        await service.files("letters").upload_bytes_async(b"by hand", "a-1.txt")
        assert (await service.deliver(page.AccountOpened(account="a-1"), topic="accounts")).succeeded
        assert await service.files("letters").get_file_content_async("a-1.txt") == "by hand"
