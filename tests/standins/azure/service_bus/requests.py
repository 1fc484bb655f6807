"""What clients ask the stand-in for Service Bus over AMQP: tokens, renewals, dispositions, peeks.

https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-request-response
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from standins.azure.service_bus import amqp
from standins.azure.service_bus.amqp import Symbol, Timestamp
from standins.azure.service_bus.store import LockLost, NoEntity, Queue

if TYPE_CHECKING:
    from standins.azure.service_bus.links import Connection
    from standins.azure.service_bus.server import ServiceBusStandIn

MANAGEMENT = "/$management"


def answer(server: ServiceBusStandIn, connection: Connection, node: str, data: bytes) -> bytes:
    """Return the answer to a request."""
    asked: dict[str, Any] = {}
    message_id: Any = None
    body: Any = None
    for code, raw in amqp.sections(data):
        value = amqp.section_value(raw)
        if code == amqp.APPLICATION_PROPERTIES:
            asked = {str(name): value for name, value in value.items()}
        elif code == amqp.PROPERTIES:
            message_id = value[0] if value else None
        elif code == amqp.VALUE:
            body = value
    if node == "$cbs":
        status, told = _put_token(server, asked, body)
        return _reply(message_id, {"status-code": status, "status-description": told}, None)
    try:
        status, body = _manage(server, connection, node[: -len(MANAGEMENT)], _text(asked["operation"]), asked, body)
    except LockLost:
        lost = "session" if "session" in _text(asked["operation"]) else "message"
        condition = Symbol(f"com.microsoft:{lost}-lock-lost")
        about = {"statusCode": 410, "statusDescription": "The lock is lost.", "errorCondition": condition}
        return _reply(message_id, about, None)
    except NoEntity:
        about = {"statusCode": 404, "statusDescription": "Gone.", "errorCondition": Symbol("amqp:not-found")}
        return _reply(message_id, about, None)
    return _reply(message_id, {"statusCode": status, "statusDescription": "OK"}, body)


def _put_token(server: ServiceBusStandIn, asked: dict[str, Any], token: Any) -> tuple[int, str]:
    node = _text(asked.get("name", "")).split("://", 1)[-1].partition("/")[2]
    server.tokens.append(_text(token))
    if server.refusal(node.lower()) is not None:
        return 401, "Unauthorized"
    return 202, "Accepted"


def _manage(
    server: ServiceBusStandIn, connection: Connection, path: str, operation: str, asked: dict[str, Any], body: Any
) -> tuple[int, Any]:
    queue = server.store.source(path)
    given = {_text(name): value for name, value in (body or {}).items()}
    match operation:
        case "com.microsoft:renew-lock":
            until = [_milliseconds(queue.renew(_token(one))) for one in given["lock-tokens"]]
            return 200, {"expirations": amqp.Raw(amqp.array_of(0x83, until))}
        case "com.microsoft:renew-session-lock":
            return 200, {"expiration": Timestamp(int(_renew_session(connection, queue, given) * 1000))}
        case "com.microsoft:get-session-state":
            _own_session(connection, queue, given)
            return 200, {"session-state": queue.states.get(_text(given["session-id"]))}
        case "com.microsoft:set-session-state":
            _own_session(connection, queue, given)
            state = given["session-state"]
            if state is None:
                queue.states.pop(_text(given["session-id"]), None)
            else:
                queue.states[_text(given["session-id"])] = bytes(state)
            return 200, {}
        case "com.microsoft:update-disposition":
            for one in given["lock-tokens"]:
                _dispose(queue, _token(one), given)
            return 200, {}
        case "com.microsoft:peek-message":
            return _peek(queue, int(given["from-sequence-number"]), int(given["message-count"]))
    return 501, None


def _own_session(connection: Connection, queue: Queue, given: dict[str, Any]) -> None:
    key = _text(given["session-id"])
    if not any(link.session_id == key for link in connection.outgoing.values()):
        raise LockLost


def _renew_session(connection: Connection, queue: Queue, given: dict[str, Any]) -> float:
    key = _text(given["session-id"])
    owner = next((link for link in connection.outgoing.values() if link.session_id == key), None)
    return queue.renew_session(owner, key)


def _dispose(queue: Queue, token: bytes, given: dict[str, Any]) -> None:
    match _text(given["disposition-status"]):
        case "completed":
            queue.complete(token)
        case "abandoned":
            queue.abandon(token)
        case "suspended":
            queue.bury(token, _text(given.get("deadletter-reason", "")), _text(given.get("deadletter-description", "")))


def _peek(queue: Queue, number: int, count: int) -> tuple[int, Any]:
    from standins.azure.service_bus.links import delivered

    found = [message for message in queue.each() if message.sequence >= number][:count]
    if not found:
        return 204, None
    return 200, {"messages": [{"message": delivered(message)} for message in found]}


def _reply(message_id: Any, about: dict[str, Any], body: Any) -> bytes:
    # int() of a status is an AMQP int; encoded as long the SDK reads it as well.
    return b"".join(
        (
            amqp.section(amqp.PROPERTIES, [None, None, None, None, None, message_id]),
            amqp.section(amqp.APPLICATION_PROPERTIES, about),
            amqp.section(amqp.VALUE, body),
        )
    )


def _token(value: Any) -> bytes:
    return value.bytes if isinstance(value, uuid.UUID) else uuid.UUID(_text(value)).bytes


def _milliseconds(seconds: float) -> bytes:
    return amqp.encode(Timestamp(int(seconds * 1000)))[1:]


def _text(value: Any) -> str:
    return bytes(value).decode() if isinstance(value, bytes) else str(value)
