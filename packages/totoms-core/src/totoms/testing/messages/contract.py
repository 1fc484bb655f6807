"""The contract of the message bus: behaviours 1 to 26, 62, and 64 to 68."""

from __future__ import annotations

from totoms.testing.messages.backlog import Backlogs
from totoms.testing.messages.batches import Batches
from totoms.testing.messages.dead_letters import DeadLetters
from totoms.testing.messages.delivery import Delivery
from totoms.testing.messages.fields import Fields
from totoms.testing.messages.flow import Flow
from totoms.testing.messages.leases import Leases
from totoms.testing.messages.ordering import Ordering
from totoms.testing.messages.publishing import Publishing
from totoms.testing.messages.retries import Retries
from totoms.testing.messages.typed import Typed
from totoms.testing.messages.vanished import Vanished


class MessageBusContract(
    Delivery,
    Publishing,
    Retries,
    Leases,
    Flow,
    Ordering,
    DeadLetters,
    Backlogs,
    Batches,
    Fields,
    Typed,
    Vanished,
):
    """Messaging on a backend. Provide the fixture ``harness``, a `MessageBusHarness`.

    Each test has its own topic. It publishes by the public methods, and handles messages as a service does: with the
    core's consumer and router, and a handler of the test. Tests of leases call the backend's receiver themselves.

    For a backend without PULL only publishing is tested.
    """
