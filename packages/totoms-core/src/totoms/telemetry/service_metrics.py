"""The instruments of a service, except those of messages: tokens, keys, backlogs, and the local bus.

docs/operations/metrics.md lists them. Labels name what the declaration names and outcomes, never what a caller sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from totoms.telemetry.guard import unfailing

_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000)
Place = tuple[str, str]
"""A topic's logical name, or that of a queue, and the name of a subscription."""


class ServiceInstruments:
    """The instruments of one meter.

    Args:
        meter: Makes them.
    """

    def __init__(self, meter: Meter) -> None:
        counter = meter.create_counter
        self._backlogs: dict[Place, tuple[int, float | None]] = {}
        self._verifications = counter("totoms.auth.verifications", "{token}", "Tokens verified, by outcome")
        self._fetches = counter("totoms.auth.key_fetches", "{fetch}", "Reads of keys that verify tokens, by outcome")
        self._commits = counter("totoms.local_bus.commits", "{commit}", "Transactions of the local bus")
        self._batch = meter.create_histogram(
            "totoms.local_bus.batch",
            "{operation}",
            "Operations in one transaction of the local bus",
            explicit_bucket_boundaries_advisory=_SIZES,
        )
        self._log = meter.create_gauge("totoms.local_bus.log", "By", "Size of the local bus's write-ahead log")
        meter.create_observable_gauge(
            "totoms.subscription.backlog", [self._observe_backlogs], "{message}", "Messages that are not handled yet"
        )
        meter.create_observable_gauge(
            "totoms.subscription.oldest_age", [self._observe_ages], "s", "Age of the oldest message not handled yet"
        )

    @unfailing
    def verified(self, outcome: str) -> None:
        """Count a token; the outcome is "accepted", "rejected" or "undecided"."""
        self._verifications.add(1, {"totoms.outcome": outcome})

    @unfailing
    def fetched_keys(self, source: str, *, failed: bool) -> None:
        """Count a read of keys.

        Args:
            source: The host of the keys' address, or "secrets" for the service's own keys.
            failed: Whether it failed.
        """
        outcome = "failed" if failed else "succeeded"
        self._fetches.add(1, {"totoms.keys.source": source, "totoms.outcome": outcome})

    @unfailing
    def committed(self, operations: int, log_bytes: int) -> None:
        """Record a transaction of the local bus.

        Args:
            operations: How many operations it had.
            log_bytes: The size of the write-ahead log afterwards.
        """
        self._commits.add(1)
        self._batch.record(operations)
        self._log.set(log_bytes)

    def set_backlog(self, place: Place, messages: int, oldest_seconds: float | None) -> None:
        """Set the backlog of a subscription, until it is set again or removed."""
        self._backlogs[place] = messages, oldest_seconds

    def remove_backlog(self, place: Place) -> None:
        """Remove the backlog of a subscription, because it is not known any more."""
        self._backlogs.pop(place, None)

    def _observe_backlogs(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(messages, _labels(place)) for place, (messages, _) in list(self._backlogs.items())]

    def _observe_ages(self, _options: CallbackOptions) -> Iterable[Observation]:
        known = [(place, age) for place, (_, age) in list(self._backlogs.items()) if age is not None]
        return [Observation(age, _labels(place)) for place, age in known]


def _labels(place: Place) -> dict[str, str]:
    return {"messaging.destination.name": place[0], "messaging.destination.subscription.name": place[1]}
