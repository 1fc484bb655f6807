"""Push requests, and answers to handshakes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

EVENTS_PATH: Final = "/events"
"""The path of the push endpoint, below the base path of the service."""


@dataclass(slots=True, eq=False)
class PushRequest:
    """A request to the push endpoint, for the backend to verify and decode.

    The body has not been read yet. Verify the credentials in the headers first, then call :meth:`read`.

    Attributes:
        headers: Names in lower case; the values of a repeated header are joined with ", ".
        source: The raw body, or a function that reads it; call :meth:`read` instead.
        url: The public address of the push endpoint from the configuration, else the requested URL.
        method: ``POST``; or ``OPTIONS``, by which a broker without a message asks for permission to push
            (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md#4-abuse-protection).
    """

    headers: Mapping[str, str]
    source: bytes | Callable[[bool], Awaitable[bytes]]
    url: str
    method: str = "POST"

    async def read(self, *, verified: bool) -> bytes:
        """Read and return the raw body. Call it once.

        Args:
            verified: Whether the headers prove that the broker sent this. If not, because the signature is in the body,
                the body is read with tight limits on time and memory.

        Raises:
            Undecidable: It did not arrive in time, there is no memory for it, or the service is shutting down.
            HTTPException: 413, it is larger than the backend's `max_push_bytes`.
        """
        return self.source if isinstance(self.source, bytes) else await self.source(verified)


@dataclass(frozen=True, slots=True)
class PushReply:
    """A backend's own answer to a push request that carries no message (a subscription handshake).

    Attributes:
        status: The HTTP status.
        body: JSON content of the answer.
        headers: Further headers of the answer.
        subscribed: The logical name of the topic whose subscription this confirms, if any.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    subscribed: str | None = None
