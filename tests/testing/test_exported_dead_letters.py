"""A failure in production becomes a failing test: exported, loaded and delivered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from totoms import (
    ConfigurationError,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    NotFound,
    RetryPolicy,
    TotoEnvironment,
    TotoMessage,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    toto_handler,
)
from totoms.cli.main import main
from totoms.http.lifespan import Lifespan
from totoms.messages.dead_letters import DeadLetter, DeadLetterReason
from totoms.messages.exported import from_line, to_line
from totoms.testing import TestMicroservice, load_dead_letters

LETTER = DeadLetter("1", "m-1", "blog-posts", b"{}", {"a": "b"}, DeadLetterReason("undecodable"), 1.5)
SEEN: list[Any] = []


@toto_handler(type="orderPlaced")
async def bill(message: TotoMessage[dict[str, Any]]) -> None:
    SEEN.append(message)
    if message.data["amount"] < 0:
        raise ValueError(f"no invoice for {message.data['customer']}")


def service(environment: TotoEnvironment | None = None, subscription: str | None = None) -> Any:
    return TotoMicroserviceConfiguration(
        service_name="blog",
        environment=environment,
        message_bus_configuration=MessageBusConfig(
            topics=[
                MessageBusTopicConfig(logical_name="orders", secret="orders-topic", subscription=subscription),
                MessageBusTopicConfig(logical_name="other", secret="other-topic"),
            ],
            message_handlers=[MessageBusHandlerConfig(handler=bill)],
            retry=RetryPolicy(max_attempts=1),
        ),
    )


async def fail_in_production(environment: TotoEnvironment, data: dict[str, Any]) -> None:
    """Run the service on the local backend until a message was dead-lettered."""
    microservice = await TotoMicroservice.create(service(environment))
    lifespan = Lifespan(microservice.app)
    await lifespan.start()
    try:
        message = TotoMessage(type="orderPlaced", cid="c-17", data=data)
        await microservice.message_bus.publish_message(MessageDestination(topic="orders"), message)
        async with asyncio.timeout(60):
            while not await microservice.message_bus.list_dead_letters("blog-orders"):
                await asyncio.sleep(0.01)
    finally:
        await lifespan.stop()


@pytest.mark.parametrize("options", [(), ("--with-data",)], ids=["fakes", "data"])
async def test_production_failure_becomes_a_failing_test(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_root: str
) -> None:
    for name in ("ORDERS_TOPIC", "OTHER_TOPIC", "JWT_SIGNING_KEY"):
        monkeypatch.setenv(name, f"{name}-{'of-this-test' * 3}")
    data = {"customer": "ann@corp.example", "amount": -12.5, "lines": [{"sku": "A-17", "placed": "2026-12-01"}]}
    await fail_in_production(TotoEnvironment("local"), data)
    path = tmp_path / "failures.jsonl"
    assert await asyncio.to_thread(main, ["dlq", "export", "blog-orders", str(path), *options]) == 0

    (letter,) = load_dead_letters(path)
    SEEN.clear()
    async with TestMicroservice(service()) as blog:
        result = await blog.deliver(letter)

    assert not result.succeeded
    assert isinstance(result.error, ValueError)
    assert letter.reason.error_class == "ValueError"
    assert "test_exported_dead_letters.py:" in letter.reason.description
    (message,) = SEEN
    assert (message.cid, message.delivery.message_id, message.delivery.attempt) == ("c-17", letter.message_id, 1)
    assert (message.data == data) == bool(options)
    assert ("ann@corp.example" in path.read_text()) == bool(options)


async def test_dead_letter_goes_to_the_topic_of_its_subscription() -> None:
    body = json.dumps({"type": "orderPlaced", "data": {"amount": 1}}).encode()
    async with TestMicroservice(service(subscription="billing")) as blog:
        for name, topic in (("billing", "orders"), ("blog-other", "other")):
            result = await blog.deliver(DeadLetter("1", "m-1", name, body, {}, LETTER.reason, 0.0))
            assert result.message is not None
            assert result.message.delivery is not None
            assert (result.message.delivery.topic, result.message.delivery.subscription) == (topic, name)
        with pytest.raises(NotFound, match="orders, other"):
            await blog.deliver(DeadLetter("1", "m-1", "elsewhere", body, {}, LETTER.reason, 0.0))
        elsewhere = await blog.deliver(DeadLetter("1", "m", "x", body, {}, LETTER.reason, 0.0), topic="other")
        assert elsewhere.succeeded


@pytest.mark.parametrize("body", [b"{}", b"\xff\x00", "Grüße\n\u2028".encode(), b""])
def test_line_holds_all_of_a_dead_letter(body: bytes, tmp_path: Path) -> None:
    reason = DeadLetterReason("invalid", "ValueError", "no\x1b[2J (at a.py:1 in b)", 3)
    letter = DeadLetter("1", "m-1", "blog-\u2028posts", body, {"a": "b\n"}, reason, 1.5)
    line = to_line(letter, with_data=True)
    assert line.isascii()
    assert "\n" not in line
    assert from_line(line) == letter


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "{}", '"' + "x" * 20, "[" * 100_000]
    + [to_line(LETTER, with_data=True).replace(*one) for one in (("1.5", "null"), ('"b"', "1"), ('"{}"', "7"))],
)
def test_line_that_is_not_a_dead_letter_is_named_with_its_number(line: str, tmp_path: Path) -> None:
    path = tmp_path / "letters.jsonl"
    path.write_text(f"{to_line(LETTER, with_data=True)}\n\n{line}\n")
    with pytest.raises(ConfigurationError, match=r"letters\.jsonl:3 is not an exported dead letter: "):
        load_dead_letters(path)
