"""Stopping: handled messages are settled, the others are released unchanged, and the process ends."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from support.azure.messages import Namespace
from support.faults.oracle import until
from support.processes import Process
from totoms.messages.message import TotoMessage, encode_message

CONSUMER = Path(__file__).parents[1] / "support/faults/broker_consumer.py"
NUMBER = 600


@pytest.mark.parametrize("kind", ["plain", "ordered"])
async def test_what_was_handled_before_sigterm_is_settled_and_the_rest_is_still_there(
    namespace: Namespace, tmp_path: Path, kind: str
) -> None:
    ordered = kind == "ordered"
    await namespace.bus()._subscribe(namespace.ordered if ordered else namespace.subscription, create=True)
    for number in range(NUMBER):
        body = encode_message(TotoMessage(type="numbered", id=str(number)))
        await namespace.publish(body, key=f"key-{number % 4}")
    handled = tmp_path / "handled"
    handled.touch()
    variables = {"HYPERSCALER": "azure", "AZURE_SERVICEBUS_CONNECTION_STRING": namespace.server.connection_string}
    process = Process(CONSUMER, namespace.topic, str(handled), kind, root=str(tmp_path), env=variables)
    try:
        await asyncio.to_thread(until, lambda: len(_lines(handled)) >= 60, lambda: process.output)
        process.send(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait) == 0, process.output
    finally:
        process.kill()
    done, left = _lines(handled), {json.loads(body)["id"] for body in namespace.bodies()}
    assert len(done) == len(set(done)), "a message was handled twice"
    assert set(done) | left == {str(number) for number in range(NUMBER)}, "a message is lost"
    assert not set(done) & left, "an acknowledgement was lost"
    assert left, "the test came too late"
    assert namespace.locked() == 0, "messages are held by a process that is gone"
    assert set(namespace.counts()) == {0}, "an attempt was counted of a message that nobody has begun"
    assert not namespace.bodies(f"{namespace.path}/$deadletterqueue")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()
