"""The operations of a message bus that a backend implements, and what it declares of itself.

The public methods in :mod:`totoms.messages.bus` call them. `_subscribe` returns a `Receiver`, and `_dead_letters` a
`DeadLetterStore`.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar, Final

from totoms.environment import TotoEnvironment
from totoms.errors import BackendError, Unsupported
from totoms.messages.dead_letters import DeadLetterStore
from totoms.messages.outgoing import Outgoing
from totoms.messages.push_request import PushReply, PushRequest
from totoms.messages.receiver import Received, Receiver
from totoms.messages.subscription import Backlog, Existing, Subscription
from totoms.operations import backend_operation

ORDERING: Final = "ordering"
DELAY: Final = "delay"
QUEUES: Final = "queues"
PUSH: Final = "push"
PULL: Final = "pull"
DEAD_LETTERS: Final = "dead_letters"
BACKLOG: Final = "backlog"


class BusDriver(ABC):
    """A backend's operations on messages. All raise `BackendError` only.

    Attributes:
        environment: Where the service runs.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({PULL})
    """Which of the capabilities above the backend has. Using another raises `Unsupported`."""
    creates_push: ClassVar[bool] = False
    """Whether the backend can create and list push subscriptions; see `_existing`."""
    lease_seconds: ClassVar[float] = 0.0
    """How long a lease lasts unless :meth:`use_lease` is called, for the log; 0 if the backend does not know."""
    lease_range: ClassVar[tuple[float, float] | None] = None
    """The shortest and the longest lease that :meth:`use_lease` takes, in seconds; None if it cannot be set."""
    longest_pause: ClassVar[float | None] = None
    """The longest pause before another attempt, in seconds; a longer `RetryPolicy.max_backoff` is cut. None for any."""
    max_message_bytes: ClassVar[int] = 256 * 1024
    """The broker's limit for body and attributes together, in bytes."""
    max_push_bytes: ClassVar[int] = 10 * 1024 * 1024
    """The largest push request in bytes: the broker's largest message in its envelope, encoded and escaped."""
    messaging_system: ClassVar[str] = ""
    """``messaging.system`` on spans and metrics, by OpenTelemetry's conventions; "" for the hyperscaler's name."""
    push_patience: ClassVar[float] = 30.0
    """Seconds that the broker waits for the answer to a push."""

    environment: TotoEnvironment

    @backend_operation
    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        """Send messages, in several batches if there are too many for one. Return a result for each, in order."""
        raise NotImplementedError

    def _keeps_order(self, destination: str) -> bool:
        """Return whether a topic or queue preserves the order of messages with the same key.

        By default all do, if the backend has the ``ordering`` capability.

        Args:
            destination: The provider's identifier of the topic, or the name of the queue.
        """
        return ORDERING in self.capabilities

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> Receiver:
        """Create or update the pull subscription if needed, and return its receiver.

        Args:
            subscription: The subscription to pull.
            create: Whether infrastructure may be created or changed.

        Raises:
            NotFound: Something does not exist; the message says what.
            AccessDenied: The broker denied access; the message names the missing right.
        """
        raise Unsupported(f"The {self.environment.hyperscaler} message bus has no pull.", resource=PULL)

    async def _subscribe_push(self, subscription: Subscription, *, create: bool) -> None:
        """Create or update the push subscription to `subscription.push_url`. Raises the same as `_subscribe`."""
        raise Unsupported(f"The {self.environment.hyperscaler} message bus makes no push subscriptions.", resource=PUSH)

    async def _existing(self, subscription: Subscription) -> Existing | None:
        """Return which subscriptions exist, pull and push, or None if the broker has no way to tell. Change nothing.

        Raises:
            AccessDenied: The service may not read subscriptions. The message names the missing right.
            NotFound: The topic does not exist.
        """
        return None

    async def _backlog(self, subscription: Subscription) -> Backlog | None:
        """Return how many messages of a subscription are not handled yet, or None if the broker does not say.

        Implemented with the capability ``backlog``. It receives and changes nothing. The numbers may be as old as those
        that the broker shows its operator.

        Raises:
            NotFound: The subscription does not exist.
            AccessDenied: The service may not read it. The message names the missing right.
        """
        return None

    def _use_lease(self, seconds: float) -> None:
        """Set the length of leases; `seconds` is within `lease_range`."""

    async def _push_lacks(self, subscription: Subscription, address: str) -> str:
        """Return what must change in a push subscription so that it survives an outage of an hour, or "".

        The text continues a sentence whose subject is the subscription, and ends with the command that changes it.
        """
        return ""

    async def _undelivered(self, subscription: Subscription) -> Receiver | None:
        """Return a receiver for messages that the broker could not push, such as during an outage.

        Called after `_subscribe_push`. None if the broker itself retries for long enough.
        """
        return None

    async def _accept_push(self, request: PushRequest) -> PushReply | Sequence[Received]:
        """Verify a push request and decode its envelope, or answer a handshake with a PushReply.

        Check the credentials in the headers, then ``await request.read(verified=True)``. If the signature is in the
        body, ``await request.read(verified=False)``, which has tight limits, and check that.

        For an authentic request whose envelope cannot be decoded, return one `Received` with the raw body and
        `undecodable` set, so that it is dead-lettered like any other undecodable message.

        Raises:
            Unauthorized, Forbidden: A forgery. Nothing may be run or fetched because of it.
            Undecidable: The keys to verify it are unavailable.
        """
        raise Unsupported(f"The {self.environment.hyperscaler} message bus has no push.", resource=PUSH)

    def _dead_letters(self, subscription: str) -> DeadLetterStore:
        """Return the dead-letter store of the subscription of this name, without I/O.

        Implemented with the capability ``dead_letters``.
        """
        raise Unsupported(f"The {self.environment.hyperscaler} message bus has no dead letters.", resource=DEAD_LETTERS)

    async def _list_subscriptions(self) -> Sequence[str] | None:
        """Return the names of all subscriptions that may have dead letters, or None if the broker cannot list them."""
        return None

    async def _close(self) -> None:
        """Close connections and threads. May be called twice."""
