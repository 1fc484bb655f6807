"""Whether telemetry is on. While `active` is None, no request or message runs any code of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from totoms.messages.receiver import Received
    from totoms.telemetry.telemetry import Telemetry

active: Telemetry | None = None
"""What records spans and metrics; `totoms.telemetry.setup` sets it when a service starts."""

_NOTHING: Final = nullcontext()


def span(name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Return a context manager that records a CLIENT span around its body, or does nothing while telemetry is off.

    Args:
        name: The name of the span, such as ``storage upload``.
        attributes: Its attributes. They must not hold secrets, payloads or the names of users.
    """
    return _NOTHING if active is None else active.span(name, attributes)


def count_key_fetch(source: str, *, failed: bool) -> None:
    """Count a read of keys that verify tokens, unless telemetry is off; see `ServiceInstruments.fetched_keys`."""
    if active is not None:
        active.instruments.service.fetched_keys(source, failed=failed)


def settling(system: str, operation: str, batch: Sequence[Received]) -> AbstractContextManager[Any]:
    """Return a context manager that records the settlement of messages, or does nothing while telemetry is off.

    Args:
        system: The messaging system.
        operation: ``ack``, ``nack`` or ``dead_letter``.
        batch: The messages, of one subscription.
    """
    return _NOTHING if active is None else active.settling(system, operation, batch)
