"""The states of an HTTP connection: one table of limits, deadlines and what happens at a deadline.

A connection is always in exactly one state, and the deadline is that of the state. It runs only while the server waits
for the client. `docs/decisions/http-server.md` shows the same table.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final, NamedTuple


class State(IntEnum):
    """What a connection is doing."""

    HEAD = 0
    """Waiting for the head of a request, or for the rest of it."""
    WORK = 1
    """The application is running and not waiting for the body, which may be incomplete."""
    BODY = 2
    """The application waits for more of the body."""
    BLOCKED = 3
    """The response waits for the client to read it."""
    DISCARD = 4
    """The response is complete; the rest of the request body is read and discarded."""
    IDLE = 5
    """The response is complete; the connection is kept open for the next request."""
    CLOSING = 6
    """The server closed the connection; pending data is still being sent."""
    UPGRADED = 7
    """A WebSocket: uvicorn's WebSocket protocol has the connection, with timers of its own."""
    CLOSED = 8
    """The connection is closed."""


# Each request compares several states. Python 3.11 calls a function to look up a member on its class: 0.1 us each, and
# together 2 % of a request (benchmarks/http_requests.py). A name of the module takes a tenth of that.
HEAD: Final = State.HEAD
WORK: Final = State.WORK
BODY: Final = State.BODY
BLOCKED: Final = State.BLOCKED
DISCARD: Final = State.DISCARD
IDLE: Final = State.IDLE
CLOSING: Final = State.CLOSING
UPGRADED: Final = State.UPGRADED
CLOSED: Final = State.CLOSED


class Ending(Enum):
    """What happens at the deadline."""

    ANSWER_408 = "408, then close"
    CLOSE = "close"
    RESET = "reset, which drops pending data"


class Rule(NamedTuple):
    """A row of the table.

    Attributes:
        counted: What is counted, and against which limit.
        deadline: The field of `ServerConfiguration` with the seconds; None without a deadline.
        rate: The field with the bytes per second that extend the deadline; None if traffic does not extend it.
        ending: What happens at the deadline.
        awaits_client: Whether the server waits for the client. Only such connections are closed to make room.
    """

    counted: str
    deadline: str | None
    rate: str | None
    ending: Ending | None
    awaits_client: bool


RULES: Final[dict[State, Rule]] = {
    State.HEAD: Rule("bytes of the head: max_header_bytes, else 431", "header_timeout", None, Ending.ANSWER_408, True),
    State.WORK: Rule("bytes not yet read by the application: reading pauses over 64 KiB", None, None, None, False),
    State.BODY: Rule(
        "bytes of chunk framing and trailers: max_header_bytes, together with the head, else 431",
        "body_timeout",
        "min_body_rate",
        Ending.CLOSE,
        True,
    ),
    State.BLOCKED: Rule("bytes received by the client", "answer_timeout", "min_answer_rate", Ending.RESET, True),
    State.DISCARD: Rule(
        "bytes discarded: min(Content-Length, max_body_bytes); 1 MiB without a length",
        "discard_timeout",
        None,
        Ending.CLOSE,
        True,
    ),
    State.IDLE: Rule("nothing", "keep_alive", None, Ending.CLOSE, True),
    State.CLOSING: Rule("bytes received by the client", "answer_timeout", "min_answer_rate", Ending.RESET, True),
    State.UPGRADED: Rule("bytes of a message: max_websocket_message_bytes", None, None, None, False),
    State.CLOSED: Rule("nothing", None, None, None, False),
}
