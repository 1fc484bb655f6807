"""How topics, queues and subscriptions are administered: Atom entries over HTTP, as the SDK's client speaks them.

https://learn.microsoft.com/rest/api/servicebus/entities
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from standins.azure.service_bus.store import Queue, Topic

if TYPE_CHECKING:
    from standins.azure.service_bus.server import ServiceBusStandIn

ATOM = "http://www.w3.org/2005/Atom"
CONNECT = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
COUNTS = "http://schemas.microsoft.com/netservices/2011/06/servicebus"
_Answer = tuple[int, bytes]


def administer(server: ServiceBusStandIn, method: str, target: str, body: bytes, *, updates: bool = False) -> _Answer:
    """Return status and content for a request; it `updates` where it has the header If-Match."""
    parts = urlsplit(target)
    path = [unquote(one) for one in parts.path.strip("/").split("/")]
    server.admin_requests.append((method, "/".join(path)))
    if server.admin_denied:
        return _error(401, "Manage claim is required for this operation.")
    if path[0].lower() == "$resources":
        found: list[Any] = (
            [*server.store.topics.values()] if path[1].lower() == "topics" else [*server.store.queues.values()]
        )
        return _feed(found, parse_qs(parts.query))
    lowered = [one.lower() for one in path]
    if "subscriptions" in lowered[1:]:
        at = lowered.index("subscriptions", 1)
        topic = server.store.topics.get("/".join(lowered[:at]))
        if topic is None:
            return _error(404, "No such topic.")
        if at == len(path) - 1:
            return _feed(list(topic.subscriptions.values()), parse_qs(parts.query))
        return _one(topic.subscriptions, f"{topic.path}/Subscriptions/", path[-1], method, body, Queue, updates)
    name = "/".join(path)
    is_topic = name.lower() in server.store.topics or b"TopicDescription" in body
    if is_topic:
        return _one(server.store.topics, "", name, method, body, Topic, updates)
    return _one(server.store.queues, "", name, method, body, Queue, updates)


def _one(
    entities: dict[str, Any], prefix: str, name: str, method: str, body: bytes, kind: type, updates: bool
) -> _Answer:
    found = entities.get(name.lower())
    if method == "GET":
        # Of what is not there the service answers with a feed of nothing.
        return (200, _entry(found)) if found is not None else (200, f'<feed xmlns="{ATOM}"/>'.encode())
    if method == "DELETE":
        if found is None:
            return _error(404, "No such entity.")
        del entities[name.lower()]
        return 200, b""
    if (found is None) == updates:
        return _error(404, "No such entity.") if updates else _error(409, "It exists already.")
    settings = _settings(body)
    if found is None:
        found = entities[name.lower()] = kind(f"{prefix}{name}")
    found.settings = {**found.settings, **settings}
    if isinstance(found, Queue):
        _apply(found)
    return 200 if updates else 201, _entry(found)


def _apply(queue: Queue) -> None:
    queue.requires_session = queue.settings.get("RequiresSession") == "true"
    queue.max_delivery_count = int(queue.settings.get("MaxDeliveryCount") or 10)
    queue.lock_seconds = _seconds(queue.settings.get("LockDuration") or "PT1M")
    if queue.dead is not None:
        queue.dead.lock_seconds = queue.lock_seconds


def _seconds(duration: str) -> float:
    match = re.fullmatch(r"P(?:(\d+)D)?T?(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?", duration)
    assert match is not None, duration
    days, hours, minutes, seconds = (float(one or 0) for one in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _settings(body: bytes) -> dict[str, str]:
    root = ElementTree.fromstring(body)
    content = next(one for one in root.iter() if one.tag.endswith("Description"))
    return {child.tag.rpartition("}")[2]: child.text or "" for child in content if not len(child)}


def _entry(entity: Any) -> bytes:
    kind = (
        "TopicDescription"
        if isinstance(entity, Topic)
        else ("SubscriptionDescription" if "/Subscriptions/" in entity.path else "QueueDescription")
    )
    told = dict(entity.settings)
    if isinstance(entity, Queue):
        told |= {
            "RequiresSession": str(entity.requires_session).lower(),
            "MaxDeliveryCount": str(entity.max_delivery_count),
            "LockDuration": f"PT{entity.lock_seconds:g}S",
            "MessageCount": str(sum(1 for _ in entity.each())),
        }
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in told.items())
    if isinstance(entity, Queue):
        inner += _counts(entity)
    name = escape(entity.path.rpartition("/Subscriptions/")[2])
    return (
        f'<entry xmlns="{ATOM}"><title type="text">{name}</title><content type="application/xml">'
        f'<{kind} xmlns="{CONNECT}">{inner}</{kind}></content></entry>'
    ).encode()


def _counts(queue: Queue) -> str:
    counts = {
        "ActiveMessageCount": sum(1 for _ in queue.each()),
        "DeadLetterMessageCount": 0 if queue.dead is None else sum(1 for _ in queue.dead.each()),
        "ScheduledMessageCount": len(queue.scheduled),
    }
    inner = "".join(f"<d2p1:{name}>{number}</d2p1:{name}>" for name, number in counts.items())
    return f'<CountDetails xmlns:d2p1="{COUNTS}">{inner}</CountDetails>'


def _feed(entities: list[Any], query: dict[str, list[str]]) -> _Answer:
    skip, top = int(query.get("$skip", ["0"])[0]), int(query.get("$top", ["100"])[0])
    entries = b"".join(_entry(entity) for entity in entities[skip : skip + top])
    return 200, f'<feed xmlns="{ATOM}">'.encode() + entries + b"</feed>"


def _error(status: int, detail: str) -> _Answer:
    return status, f"<Error><Code>{status}</Code><Detail>{escape(detail)}</Detail></Error>".encode()
