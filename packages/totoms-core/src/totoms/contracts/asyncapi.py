"""The AsyncAPI document of a service (https://www.asyncapi.com/docs/reference/specification/v3.1.0)."""

from __future__ import annotations

from typing import Any, Final

from totoms.contracts.schemas import in_order, moved
from totoms.manifest import Manifest, ManifestEvent

UNDERSTOOD: Final = "x-totoms-understood-versions"
"""The extension with the versions of an event that the service reads."""
TYPE: Final = "x-totoms-type"
EVENT_VERSION: Final = "x-totoms-version"
EVERY_TOPIC: Final = "*"
"""The channel of handlers that take messages of every topic, where the service declares no topic."""


def asyncapi_of(manifest: Manifest) -> dict[str, Any]:
    """Return the AsyncAPI document of a service: a channel for each topic, with all its messages."""
    every = [topic.name for topic in manifest.topics] or [EVERY_TOPIC]
    channels: dict[str, dict[str, Any]] = {}
    operations: dict[str, dict[str, Any]] = {}
    messages: dict[str, dict[str, Any]] = {}
    for action, events in (("receive", manifest.events.consumed), ("send", manifest.events.published)):
        for event in events:
            if not event.type:
                continue  # known at start only
            name = _name(event, action)
            messages[name] = _message(event)
            for topic in event.topics or every:
                channel = channels.setdefault(topic, {"address": topic, "messages": {}})
                channel["messages"][name] = {"$ref": f"#/components/messages/{_escaped(name)}"}
                operation = operations.setdefault(f"{action}_{topic}", _operation(action, topic))
                operation["messages"].append({"$ref": f"#/channels/{_escaped(topic)}/messages/{_escaped(name)}"})
    for operation in operations.values():
        operation["messages"].sort(key=lambda one: one["$ref"])
    information = {"title": manifest.service.name, "version": manifest.service.version}
    if manifest.service.description:
        information["description"] = manifest.service.description
    return {
        "asyncapi": "3.1.0",
        "info": information,
        "defaultContentType": "application/json",
        "channels": {name: in_order(channels[name]) for name in sorted(channels)},
        "operations": {name: operations[name] for name in sorted(operations)},
        "components": {"messages": {name: messages[name] for name in sorted(messages)}},
    }


def _name(event: ManifestEvent, action: str) -> str:
    version = f".v{event.version}" if event.version is not None else ""
    return f"{action}.{event.type}{version}"


def _operation(action: str, topic: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{_escaped(topic)}"}, "messages": []}


def _message(event: ManifestEvent) -> dict[str, Any]:
    found: dict[str, Any] = {"name": event.type, TYPE: event.type}
    if event.version is not None:
        found[EVENT_VERSION] = event.version
        found["title"] = f"{event.type}, version {event.version}"
    if event.understood:
        found[UNDERSTOOD] = event.understood
    # The wire form of a message; `data` is what an event declares.
    payload: dict[str, Any] = {
        "type": "object",
        "properties": {
            "cid": {"type": "string"},
            "data": _data(event),
            "id": {"type": "string"},
            "msg": {"type": "string"},
            "timestamp": {"type": "string"},
            "type": {"const": event.type},
        },
        "required": ["data", "type"],
    }
    found["payload"] = payload
    return found


def _data(event: ManifestEvent) -> dict[str, Any]:
    if event.data is None:
        return {}
    # References are relative to the document, not to the schema that they stand in.
    place = f"#/components/messages/{_escaped(_name_in(event))}/payload/properties/data/$defs/"
    return dict(in_order(moved(event.data, "#/$defs/", place)))


def _name_in(event: ManifestEvent) -> str:
    return _name(event, "receive" if event.understood else "send")


def _escaped(name: str) -> str:
    """Return a name as a part of a JSON pointer (RFC 6901) in a URI fragment."""
    return name.replace("~", "~0").replace("/", "~1").replace("%", "%25").replace(" ", "%20")
