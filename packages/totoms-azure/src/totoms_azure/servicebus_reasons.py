"""Why a message is dead, in the two properties that Service Bus has for it: a reason, and a description for people."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from totoms.envelope import DeadLetterReason

REASON: Final = "DeadLetterReason"
DESCRIPTION: Final = "DeadLetterErrorDescription"
_BY_SERVICE_BUS: Final = {"MaxDeliveryCountExceeded": "lease_expired"}
"""What Service Bus says of those that it gives up itself, in our words
(https://learn.microsoft.com/azure/service-bus-messaging/service-bus-dead-letter-queues#moving-messages-to-the-dlq)."""
_LONGEST: Final = 4000
_FORM: Final = re.compile(
    r"(?P<class>\S+) after (?P<attempts>\d{1,9}) attempts?, (?P<since>[0-9T:.+-]{10,40})(?:, as (?P<id>\S{1,128}))?: ?",
    re.ASCII,
)
_NO_CLASS: Final = "Given-up"


@dataclass(frozen=True, slots=True)
class Death:
    """What is known of how a message died.

    Attributes:
        reason: Why.
        since: When, in seconds since the epoch.
        message_id: What it was called, if it had no id of its own.
    """

    reason: DeadLetterReason
    since: float
    message_id: str = ""

    def __str__(self) -> str:
        """Return a description that tells all of it: ``ValueError after 3 attempts, 2026-…: no such post``."""
        reason = self.reason
        since = datetime.fromtimestamp(self.since, UTC).isoformat()
        times = f"{reason.attempts} attempt{'' if reason.attempts == 1 else 's'}"
        called = f", as {self.message_id}" if self.message_id else ""
        return f"{reason.error_class or _NO_CLASS} after {times}, {since}{called}: {reason.description}"[:_LONGEST]


def death_of(reason: str, description: str, attempts: int, since: float) -> Death:
    """Return what was described; of a message that was not given up by us, what there is.

    Args:
        reason: Service Bus's reason.
        description: Its description.
        attempts: How often the message was delivered.
        since: When it was enqueued, in seconds since the epoch.
    """
    told = _FORM.match(description)
    if told is None:
        return Death(DeadLetterReason(_BY_SERVICE_BUS.get(reason, reason), "", description, attempts), since)
    with contextlib.suppress(ValueError):
        since = datetime.fromisoformat(told["since"]).timestamp()
    error_class = "" if told["class"] == _NO_CLASS else told["class"]
    ours = DeadLetterReason(reason, error_class, description[told.end() :], int(told["attempts"]))
    return Death(ours, since, told["id"] or "")
