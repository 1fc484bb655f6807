"""The private members of the SDK of Service Bus that `private_api` uses: they exist, and each fallback works."""

from __future__ import annotations

import pytest
from azure.servicebus.aio import ServiceBusReceiver

from support.azure.messages import BusOfTests, Namespace
from totoms.errors import AccessDenied
from totoms.messages.receiver import Received
from totoms_azure import private_api


async def _received(namespace: Namespace, *bodies: bytes) -> tuple[BusOfTests, list[Received]]:
    bus = namespace.bus()
    await bus._subscribe(namespace.subscription, create=True)
    await namespace.publish(*bodies)
    return bus, await namespace.received(bus, len(bodies))


async def test_installed_sdk_has_the_members_that_are_used(namespace: Namespace) -> None:
    bus, (one,) = await _received(namespace, b"1")
    receiver = one.lease.link._receiver
    for name in ("_await_settlement_outcome", "_further_pull_receive_timeout", "_running"):
        assert hasattr(receiver, name), f"private_api.py does without {name}: it is slower"
    assert hasattr(receiver._amqp_transport, "drain_and_release_messages_async")
    assert hasattr(receiver._handler, "settle_messages_async")
    assert hasattr(receiver._handler._connection._transport.writer, "transport")
    for name in ("_delivery_id", "_delivery_tag", "_settled"):
        assert hasattr(one.lease.handle, name)
    assert list(await bus._ack([one])) == [None]


async def test_without_those_members_all_is_still_settled(namespace: Namespace) -> None:
    class Changed:
        """A receiver of an SDK with other private members."""

        def __init__(self, receiver: ServiceBusReceiver) -> None:
            self.receive_messages = receiver.receive_messages
            self.complete_message = receiver.complete_message
            self.abandon_message = receiver.abandon_message

        async def __aenter__(self) -> Changed:
            return self

    bus, received = await _received(namespace, b"1", b"2", b"3")
    changed = Changed(received[0].lease.link._receiver)
    one, two, three = (received[number].lease.handle for number in range(3))
    private_api.shorten_gap(changed)  # type: ignore[arg-type]
    await private_api.connect(changed)  # type: ignore[arg-type]
    await private_api.drain(changed)  # type: ignore[arg-type]
    private_api.abort(changed)  # type: ignore[arg-type]
    await private_api.complete(changed, one, confirmed=False)  # type: ignore[arg-type]
    await private_api.complete(changed, two, confirmed=True)  # type: ignore[arg-type]
    await private_api.release(changed, three)  # type: ignore[arg-type]
    assert namespace.bodies() == [received[2].body]
    assert namespace.counts() == [1]
    assert namespace.locked() == 0
    assert list(await bus._receive(namespace.subscription, 1, 5.0))


async def test_closed_receiver_is_known_by_the_text_of_its_error(namespace: Namespace) -> None:
    _, (one,) = await _received(namespace, b"1")
    receiver = one.lease.link._receiver
    await receiver.close()
    with pytest.raises(ValueError, match="shutdown") as raised:
        await receiver.receive_messages()
    assert private_api.is_shut_down(raised.value)
    assert not private_api.is_shut_down(ValueError("another"))


async def test_condition_is_found_in_the_text_of_an_error(namespace: Namespace) -> None:
    bus = namespace.bus()
    await bus._subscribe(namespace.subscription, create=True)
    namespace.server.denied = {namespace.path}
    with pytest.raises(AccessDenied, match=r"\(amqp:[a-z-]+\)") as raised:
        await bus._receive(namespace.subscription, 1, 5.0)
    assert isinstance(raised.value.__cause__, Exception)
    assert private_api.condition_of(raised.value.__cause__).startswith("amqp:")
    assert private_api.condition_of(ValueError("another")) == ""
