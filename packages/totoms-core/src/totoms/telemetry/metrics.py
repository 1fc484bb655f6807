"""The instruments. docs/operations/metrics.md lists them.

Labels are bounded: they name topics, subscriptions, types with a handler, classes of errors and outcomes, never a
message id, a key, a correlation id or anything else that a caller sent.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import Meter

from totoms.telemetry.guard import unfailing
from totoms.telemetry.service_metrics import ServiceInstruments

if TYPE_CHECKING:
    from totoms.errors import BackendError
    from totoms.messages.outcome import Outcome
    from totoms.messages.outgoing import Outgoing
    from totoms.messages.receiver import Received

_MOST_TYPES: Final = 200
"""Types of published messages that are labels. Further ones count as "other": a service may derive types from data."""
_MOST_DESTINATIONS: Final = 200
"""Topics and queues of published messages that are labels: a service may derive the names of queues from data."""
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_AGES: Final = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)
_ATTEMPTS: Final = (1, 2, 3, 4, 5, 7, 10, 20)

_SYSTEM: Final = "messaging.system"
_DESTINATION: Final = "messaging.destination.name"
_SUBSCRIPTION: Final = "messaging.destination.subscription.name"
_OPERATION: Final = "messaging.operation.name"
_OPERATION_TYPE: Final = "messaging.operation.type"
_ERROR: Final = "error.type"
_TYPE: Final = "totoms.message.type"
_OUTCOME: Final = "totoms.message.outcome"


class _Labels:
    """Bounds the values of a label: after `most`, further ones are "other"."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def label(self, value: str) -> str:
        """Return `value`, or "other"."""
        if value not in self._known:
            if len(self._known) >= self._most:
                return "other"
            self._known.add(value)
        return value


class Instruments:
    """The instruments of one meter.

    Args:
        meter: Makes them.

    Attributes:
        service: The instruments of tokens, keys, backlogs and the local bus.
    """

    def __init__(self, meter: Meter) -> None:
        self.service = ServiceInstruments(meter)
        self._sent_types = _Labels(_MOST_TYPES)
        self._sent_to = _Labels(_MOST_DESTINATIONS)
        histogram, counter = meter.create_histogram, meter.create_counter
        self._duration = histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of a call to the broker: publish, receive or settle",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._process = histogram(
            "messaging.process.duration",
            "s",
            "Duration of handling one message",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._sent = counter("messaging.client.sent.messages", "{message}", "Messages published, or tried to")
        self._consumed = counter("messaging.client.consumed.messages", "{message}", "Messages received by pull")
        self._handled = counter("totoms.messages.handled", "{message}", "Deliveries handled, by type and outcome")
        self._dead = counter("totoms.messages.dead_lettered", "{message}", "Messages dead-lettered, by reason")
        self._age = histogram(
            "totoms.messages.age",
            "s",
            "Time from a message's timestamp to the start of its handling",
            explicit_bucket_boundaries_advisory=_AGES,
        )
        self._attempts = histogram(
            "totoms.messages.attempts",
            "{attempt}",
            "The attempt of each delivery, from 1",
            explicit_bucket_boundaries_advisory=_ATTEMPTS,
        )
        self._in_flight = meter.create_up_down_counter(
            "totoms.messages.in_flight", "{message}", "Messages that are being handled"
        )
        self._leases = counter("totoms.leases.lost", "{lease}", "Leases that expired before their message was settled")
        self._given_up = counter("totoms.acks.given_up", "{message}", "Messages whose ack was given up")

    @unfailing
    def in_flight(self, destination: str, change: int) -> None:
        """Change how many messages of a topic are being handled."""
        self._in_flight.add(change, {_DESTINATION: destination})

    @unfailing
    def operation(self, system: str, destination: str, operation: str, kind: str, seconds: float, failure: str) -> None:
        """Record a call to the broker.

        Args:
            system: The messaging system.
            destination: The topic or queue.
            operation: The name of the operation.
            kind: The type of the operation by the conventions: send, receive or settle.
            seconds: How long it took.
            failure: The class of its error, or "".
        """
        labels = {_SYSTEM: system, _DESTINATION: destination, _OPERATION: operation, _OPERATION_TYPE: kind}
        self._duration.record(seconds, _with_error(labels, failure))

    @unfailing
    def published(
        self,
        system: str,
        destination: str,
        batch: Sequence[Outgoing],
        results: Sequence[BackendError | None],
        seconds: float,
        failure: str,
    ) -> None:
        """Record a call that published messages.

        Args:
            system: The messaging system.
            destination: The topic or queue.
            batch: The messages.
            results: The error of each, or None; empty if the call raised.
            seconds: How long it took.
            failure: The class of the first error, or "".
        """
        destination = self._sent_to.label(destination)
        self.operation(system, destination, "publish", "send", seconds, failure)
        for outgoing, result in zip(batch, results or [None] * len(batch), strict=True):
            failed_with = failure if not results else type(result).__name__ if result is not None else ""
            self.sent(system, destination, outgoing.message_type, failed_with)

    @unfailing
    def sent(self, system: str, destination: str, message_type: str, failure: str) -> None:
        """Count a message that was published; `failure` is the class of its error, or ""."""
        labels = {
            _SYSTEM: system,
            _DESTINATION: destination,
            _OPERATION: "publish",
            _TYPE: self._sent_types.label(message_type),
        }
        self._sent.add(1, _with_error(labels, failure))

    @unfailing
    def consumed(self, system: str, destination: str, subscription: str, count: int) -> None:
        """Count messages that were received."""
        labels = {_SYSTEM: system, _DESTINATION: destination, _SUBSCRIPTION: subscription, _OPERATION: "receive"}
        self._consumed.add(count, labels)

    @unfailing
    def processed(
        self,
        system: str,
        received: Received,
        message_type: str,
        outcome: Outcome | None,
        seconds: float,
        failure: str,
    ) -> None:
        """Record the handling of one delivery.

        Args:
            system: The messaging system.
            received: The delivery.
            message_type: Its type if a handler takes it, else "other".
            outcome: How it ended; None if it was cancelled.
            seconds: How long it took.
            failure: The class of the error, or "".
        """
        subscription = received.subscription
        place = {_SYSTEM: system, _DESTINATION: subscription.logical_name, _SUBSCRIPTION: subscription.name}
        self._process.record(seconds, _with_error({**place, _OPERATION: "process"}, failure))
        ended = "cancelled" if outcome is None else "ignored" if outcome.ignored else outcome.action.value
        self._handled.add(1, {**place, _TYPE: message_type, _OUTCOME: ended})
        self._attempts.record(received.attempt, place)

    @unfailing
    def dead_lettered(self, system: str, received: Received, message_type: str, reason: str) -> None:
        """Count a dead letter that was stored.

        Args:
            system: The messaging system.
            received: The message.
            message_type: Its type if a handler takes it, else "".
            reason: `DeadLetterReason.reason`.
        """
        subscription = received.subscription
        place = {_SYSTEM: system, _DESTINATION: subscription.logical_name, _SUBSCRIPTION: subscription.name}
        self._dead.add(1, {**place, _TYPE: message_type or "other", "totoms.dead_letter.reason": reason})

    @unfailing
    def aged(self, destination: str, timestamp: str) -> None:
        """Record how old a message is.

        Args:
            destination: The topic.
            timestamp: When it was created, as `TotoMessage.timestamp` has it by default: local time in seconds. Others
                are skipped. So publisher and consumer must have the same time zone, as containers do.
        """
        try:
            created = time.mktime(time.strptime(timestamp, "%Y.%m.%d %H:%M:%S"))
        except (ValueError, OverflowError):
            return
        self._age.record(max(0.0, time.time() - created), {_DESTINATION: destination})

    @unfailing
    def lease_lost(self, destination: str, subscription: str) -> None:
        """Count a lease that expired before its message was settled."""
        self._leases.add(1, {_DESTINATION: destination, _SUBSCRIPTION: subscription})

    @unfailing
    def ack_given_up(self, destination: str, subscription: str, count: int) -> None:
        """Count messages whose ack was given up; they are delivered again."""
        self._given_up.add(count, {_DESTINATION: destination, _SUBSCRIPTION: subscription})


def _with_error(labels: dict[str, Any], failure: str) -> dict[str, Any]:
    if failure:
        labels[_ERROR] = failure
    return labels
