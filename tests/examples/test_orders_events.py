"""The handlers of examples/orders, with events as any publisher may send them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from totoms import TotoMessage
from totoms.testing import TestMicroservice

FOLDER = Path(__file__).parents[2] / "examples" / "orders"
V1 = {"order_id": "lamps", "customer": "ann", "item": "lamp", "total": "39.80"}
V2 = {"order_id": "lamps", "customer": "ann", "item": "lamp", "amount": "39.80", "currency": "CHF"}


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], TestMicroservice]:
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setenv("ISSUER", "http://127.0.0.1:1")  # there is no caller, so no key is fetched
    return lambda name: TestMicroservice(importlib.import_module(name).get_microservice_config())


async def invoice_of(service: TestMicroservice) -> str | None:
    return await service.files("invoices").get_file_content_async("texts/lamps.txt")


async def test_order_of_version_1_is_invoiced_in_euros(start: Callable[[str], TestMicroservice]) -> None:
    async with start("invoices") as service:
        assert (await service.deliver(TotoMessage(type="orderPlaced", data=V1), topic="orders")).succeeded
        assert await invoice_of(service) == "Invoice for order lamps\nlamp: 39.80 EUR\n"
        assert [message.type for message in service.published] == ["invoiceIssued"]


async def test_order_of_version_2_is_invoiced_in_its_currency(start: Callable[[str], TestMicroservice]) -> None:
    async with start("invoices") as service:
        event = importlib.import_module("invoices").OrderPlaced(**V2)
        assert (await service.deliver(event, topic="orders")).succeeded
        assert await invoice_of(service) == "Invoice for order lamps\nlamp: 39.80 CHF\n"


async def test_order_that_comes_again_keeps_the_text_of_the_accountant(
    start: Callable[[str], TestMicroservice],
) -> None:
    async with start("invoices") as service:
        await service.files("invoices").upload_bytes_async(b"as agreed", "texts/lamps.txt")
        for _ in range(2):
            assert (await service.deliver(TotoMessage(type="orderPlaced", data=V1), topic="orders")).succeeded
        assert await invoice_of(service) == "as agreed"
        assert [message.type for message in service.published] == ["invoiceIssued", "invoiceIssued"]


@pytest.mark.parametrize(
    "data", [{}, {**V1, "total": "many"}, {**V1, "total": "NaN"}, {"total": "1"}, "text", [], None]
)
async def test_order_that_is_nonsense_is_never_invoiced(start: Callable[[str], TestMicroservice], data: Any) -> None:
    async with start("invoices") as service:
        assert not (await service.deliver(TotoMessage(type="orderPlaced", data=data), topic="orders")).succeeded
        assert await invoice_of(service) is None
        assert service.published == []


async def test_refused_invoice_cancels_the_order_however_often_it_comes(
    start: Callable[[str], TestMicroservice],
) -> None:
    async with start("orders") as service:
        refused = TotoMessage(type="invoiceRefused", data={"order_id": "lamps", "reason": "too much"})
        for _ in range(2):
            assert (await service.deliver(refused, topic="invoices")).succeeded
        outcome = await service.files("orders").get_file_content_async("outcomes/lamps.json")
        assert outcome == '{"status":"cancelled","reason":"too much"}'
