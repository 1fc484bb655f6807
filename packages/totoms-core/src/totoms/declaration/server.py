"""Deadlines and limits of the HTTP server."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from totoms.declaration.base import Declaration

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(gt=0)]
Rate = Annotated[int, Field(ge=0)]


class ServerConfiguration(Declaration):
    """Deadlines and limits of the HTTP server. `states.py` says which of them holds when.

    Attributes:
        keep_alive: Seconds that a connection may stay open between two requests. It must be longer than the idle
            timeout of a load balancer in front; otherwise the balancer sends requests into connections that are being
            closed, and answers 502.
        header_timeout: Seconds for the whole head of a request.
        max_header_bytes: The most bytes of a request's head, its trailers and its chunk extensions together.
        body_timeout: Seconds that a service waits for more of a body, in total. What arrives earns time back, at
            `min_body_rate`, up to `body_timeout` again.
        min_body_rate: Bytes per second that a body must have on average; 0 to only limit each single pause.
        answer_timeout: Seconds that a service waits for a caller to take more of an answer, with the same rule.
        min_answer_rate: Bytes per second that a caller must take on average; 0 to only limit each single pause.
        discard_timeout: Seconds for which the rest of a body is read and discarded after the answer.
        max_discarding: The most connections that are in this state at a time; the oldest is closed.
        max_connections: The most open connections. When there are more, those that have waited longest for their
            caller are closed. None for 60 % of the file descriptors that the process may open, at most 10,000.
        shutdown_delay: Seconds between SIGTERM, from when on ``/ready`` answers 503, and the end of listening.
        max_websocket_message_bytes: The most bytes of one WebSocket message.
    """

    keep_alive: Seconds = 75.0
    header_timeout: Seconds = 10.0
    max_header_bytes: Count = 64 * 1024
    body_timeout: Seconds = 60.0
    min_body_rate: Rate = 500
    answer_timeout: Seconds = 60.0
    min_answer_rate: Rate = 4096
    discard_timeout: Seconds = 10.0
    max_discarding: Count = 64
    max_connections: Count | None = None
    shutdown_delay: Annotated[float, Field(ge=0, le=3600)] = 0.0
    max_websocket_message_bytes: Count = 16 * 1024 * 1024
