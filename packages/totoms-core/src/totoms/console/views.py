"""The data of the console: services, messages, spans and log lines. Processes exchange them as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Service:
    """A service that was started with the console.

    Attributes:
        name: Its name.
        url: Where it listens.
        process: The id of its process.
        backend: The hyperscaler.
        development: Whether it is a backend for development: only then calls can be tried, and a token is made.
        manifest: Its manifest.
        started: When it started, in seconds since the epoch.
        notes: What the console cannot see of it, and why.
    """

    name: str
    url: str
    process: int
    backend: str
    development: bool
    manifest: dict[str, Any]
    started: float
    notes: list[str] = field(default_factory=list)


@dataclass
class Handling:
    """One attempt to handle a message.

    Attributes:
        service: Which service.
        handler: The module and name of the handler; "" if no handler takes the type.
        attempt: Which attempt it was.
        outcome: ``ack``, ``retry``, ``dead_letter`` or ``ignored``; "" if it was cut off.
        seconds: How long it took.
        at: When it ended, in seconds since the epoch.
        error: What went wrong.
    """

    service: str
    handler: str
    attempt: int
    outcome: str
    seconds: float
    at: float
    error: str = ""


@dataclass
class Message:
    """A message that a service published or handled.

    Attributes:
        id: Its id.
        type: Its type.
        topic: The logical name of the topic, or the name of the queue.
        cid: The correlation id.
        trace: The id of the trace in which it was published; "" if that is not known.
        publisher: The service that published it; "" if another program did.
        at: When it was first seen, in seconds since the epoch.
        body: Its text, cut if it is long; "" if it is not known.
        size: The bytes of its body.
        handlings: The attempts to handle it, in their order.
        error: Why it could not be published.
    """

    id: str
    type: str = ""
    topic: str = ""
    cid: str = ""
    trace: str = ""
    publisher: str = ""
    at: float = 0.0
    body: str = ""
    size: int = 0
    handlings: list[Handling] = field(default_factory=list)
    error: str = ""


@dataclass
class SpanView:
    """A span.

    Attributes:
        id: Its id.
        parent: The id of the span that it is part of; "" for none.
        trace: The id of its trace.
        name: Its name.
        service: Which service.
        kind: ``server``, ``client``, ``producer``, ``consumer`` or ``internal``.
        begun: When it began, in seconds since the epoch.
        seconds: How long it took.
        error: What went wrong.
        attributes: Its attributes, as texts.
    """

    id: str
    parent: str
    trace: str
    name: str
    service: str
    kind: str
    begun: float
    seconds: float
    error: str
    attributes: dict[str, str]


@dataclass
class LogLine:
    """A line of the log.

    Attributes:
        at: When, in seconds since the epoch.
        level: Its level.
        service: Which service.
        cid: The correlation id.
        text: The message.
        exception: The traceback.
        fields: Further fields, as texts.
    """

    at: float
    level: str
    service: str
    cid: str
    text: str
    exception: str = ""
    fields: dict[str, str] = field(default_factory=dict)
