"""The contract of the message bus: behaviours 1 to 26."""

from __future__ import annotations

from totoms.testing.messages_delivery import Delivery
from totoms.testing.messages_flow import Flow
from totoms.testing.messages_leases import Leases
from totoms.testing.messages_letters import Letters
from totoms.testing.messages_ordering import Ordering
from totoms.testing.messages_publishing import Publishing
from totoms.testing.messages_retries import Retries


class MessageBusContract(Delivery, Publishing, Retries, Leases, Flow, Ordering, Letters):
    """What messages do on every backend. Provide the fixture ``harness``, a `MessageBusHarness`.

    A test has a topic of its own. It publishes by the public methods, and handles messages as a service does: with the
    core's consumer and router, and a handler that does what the test says. Where it is about leases it calls the
    backend's operations itself.

    A backend without PULL is held to what concerns publishing alone.
    """
