"""One connection to the stand-in for Service Bus: its sessions, its links, and what passes over them."""

from __future__ import annotations

import asyncio
import socket
import struct
import uuid
from typing import TYPE_CHECKING, Any

from standins.azure.service_bus import amqp
from standins.azure.service_bus.amqp import Described, Symbol, Timestamp, UInt, ULong, described
from standins.azure.service_bus.requests import answer
from standins.azure.service_bus.store import LockLost, NoEntity, Queue, Stored

if TYPE_CHECKING:
    from standins.azure.service_bus.server import ServiceBusStandIn

MAX_FRAME = 65536
SESSION_FILTER = "com.microsoft:session-filter"
EPOCH_TICKS = 621_355_968_000_000_000
"""Of .NET: between the year 1 and 1970."""
LINK_CREDIT = 1000


def ticks(seconds: float) -> int:
    return EPOCH_TICKS + int(seconds * 10_000_000)


class Outgoing:
    """A link by which a client receives: of an entity, or of answers to its requests."""

    def __init__(self, connection: Connection, channel: int, handle: int, name: str, node: str, address: str) -> None:
        self.connection, self.channel, self.handle = connection, channel, handle
        self.name, self.node, self.address = name, node, address
        self.queue: Queue | None = None
        self.session_id: str | None = None
        self.credit = 0
        self.sent = 0
        self.attached = False
        self.deliveries: dict[int, bytes] = {}
        self.timer: asyncio.TimerHandle | None = None

    def wants(self) -> bool:
        return self.attached and self.credit > 0

    def give(self, message: Stored) -> None:
        """Send a message that was locked for it."""
        delivery = self.send(delivered(message), uuid.UUID(bytes=message.token).bytes_le)
        self.deliveries[delivery] = message.token

    def send(self, payload: bytes, tag: bytes, *, settled: bool = False) -> int:
        """Send a message; return its delivery's number."""
        self.credit -= 1
        self.sent += 1
        delivery = self.connection.next_delivery(self.channel)
        room = MAX_FRAME - 512
        pieces = [payload[start : start + room] for start in range(0, len(payload), room)] or [b""]
        for number, piece in enumerate(pieces):
            first, more = number == 0, number < len(pieces) - 1
            transfer = described(
                amqp.TRANSFER,
                UInt(self.handle),
                UInt(delivery) if first else None,
                tag if first else None,
                UInt(0) if first else None,
                settled,
                more,
            )
            self.connection.write(self.channel, transfer, piece)
        return delivery

    def flow(self, credit: int, received: int, drain: bool) -> None:
        """Take the client's word on how many it takes."""
        self.credit = max(0, credit - (self.sent - received))
        if drain:
            self.sent += self.credit
            self.credit = 0
            self.connection.write_flow(self.channel, self.handle, self.sent, 0, drain=True)
        if self.queue is not None:
            self.queue.hand_over()

    def lose_session(self) -> None:
        """Tell that the lock of the session is over."""
        self.session_id = None
        self.connection.detach(self, amqp.error("com.microsoft:session-lock-lost", "The session lock has expired."))

    def gone(self) -> None:
        """Forget the link. What it has is locked until its lock expires; a session is given up."""
        if self.timer is not None:
            self.timer.cancel()
        if self.queue is not None:
            self.queue.takers.pop(self, None)
            self.queue.waiting.pop(self, None)
            if self.session_id is not None:
                self.queue.give_up(self, self.session_id)


class Incoming:
    """A link by which a client sends."""

    def __init__(self, channel: int, handle: int, node: str) -> None:
        self.channel, self.handle, self.node = channel, handle, node
        self.received = 0
        self.delivery = 0
        self.message_format = 0
        self.payload = bytearray()


class Connection:
    """One client's."""

    def __init__(self, server: ServiceBusStandIn, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self._writer = writer
        self.outgoing: dict[tuple[int, int], Outgoing] = {}
        self.incoming: dict[tuple[int, int], Incoming] = {}
        self._delivery: dict[int, int] = {}

    # --- what goes out ---

    def write(self, channel: int, performative: Described, payload: bytes = b"", *, sasl: bool = False) -> None:
        self._writer.write(amqp.frame(channel, performative, payload, sasl=sasl))

    def next_delivery(self, channel: int) -> int:
        self._delivery[channel] = self._delivery.get(channel, -1) + 1
        return self._delivery[channel]

    def write_flow(self, channel: int, handle: int, count: int, credit: int, *, drain: bool = False) -> None:
        delivery = self._delivery.get(channel, -1) + 1
        self.write(
            channel,
            described(
                amqp.FLOW,
                UInt(0),
                UInt(2**31 - 1),
                UInt(delivery),
                UInt(2**31 - 1),
                UInt(handle),
                UInt(count),
                UInt(credit),
                UInt(0),
                drain,
            ),
        )

    def detach(self, link: Outgoing, why: Described | None = None) -> None:
        """Detach a link from here."""
        self.outgoing.pop((link.channel, link.handle), None)
        self.write(link.channel, described(amqp.DETACH, UInt(link.handle), True, why))
        link.gone()

    def close(self, *, abruptly: bool = False) -> None:
        """End it."""
        for link in self.outgoing.values():
            link.gone()
        self.outgoing.clear()
        if abruptly:
            # With a reset: of a connection that only ends, the SDK leaves its own end open until it is collected.
            connection = self._writer.get_extra_info("socket")
            if connection is not None and not self._writer.transport.is_closing():
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        else:
            self._writer.close()

    # --- what comes in ---

    async def serve(self, reader: asyncio.StreamReader, first: bytes) -> None:
        """Speak AMQP until the client goes away."""
        header = first + await reader.readexactly(8 - len(first))
        if header == amqp.SASL_HEADER:
            self._writer.write(amqp.SASL_HEADER)
            names = [Symbol("MSSBCBS"), Symbol("PLAIN"), Symbol("ANONYMOUS"), Symbol("EXTERNAL")]
            items = [bytes((len(name),)) + name.encode() for name in names]
            self.write(0, described(amqp.SASL_MECHANISMS, amqp.Raw(amqp.array_of(0xA3, items))), sasl=True)
            await self._frame(reader)
            self.write(0, described(amqp.SASL_OUTCOME, amqp.UByte(0)), sasl=True)
            header = await reader.readexactly(8)
        if header != amqp.HEADER:
            return
        self._writer.write(amqp.HEADER)
        while True:
            channel, performative, payload = await self._frame(reader)
            if performative is None:
                continue
            code = int(performative.code)
            if code == amqp.CLOSE:
                self.write(0, described(amqp.CLOSE))
                return
            self._take(code, channel, performative, payload)
            await self._writer.drain()

    async def _frame(self, reader: asyncio.StreamReader) -> tuple[int, Described | None, bytes]:
        head = await reader.readexactly(8)
        size, channel = int.from_bytes(head[:4], "big"), int.from_bytes(head[6:8], "big")
        body = await reader.readexactly(size - 8)
        body = body[4 * head[4] - 8 :]
        if not body:
            return channel, None, b""
        performative, at = amqp.decode(body)
        return channel, performative, body[at:]

    def _take(self, code: int, channel: int, performative: Described, payload: bytes) -> None:
        if code == amqp.OPEN:
            self.write(0, described(amqp.OPEN, "stand-in", None, UInt(MAX_FRAME), UShort_MAX, UInt(240_000)))
        elif code == amqp.BEGIN:
            window = UInt(2**31 - 1)
            self.write(channel, described(amqp.BEGIN, amqp.UShort(channel), UInt(0), window, window, UInt(1023)))
        elif code == amqp.END:
            self.write(channel, described(amqp.END))
        elif code == amqp.ATTACH:
            self._attach(channel, performative)
        elif code == amqp.DETACH:
            self._detached(channel, int(performative.field(0)))
        elif code == amqp.FLOW and performative.field(4) is not None:
            link = self.outgoing.get((channel, int(performative.field(4))))
            if link is not None:
                link.flow(performative.field(6, 0), performative.field(5, 0), performative.field(8, False))
        elif code == amqp.TRANSFER:
            self._transfer(channel, performative, payload)
        elif code == amqp.DISPOSITION and performative.field(0) is True:
            self._disposition(channel, performative)

    def _detached(self, channel: int, handle: int) -> None:
        link = self.outgoing.pop((channel, handle), None)
        if link is not None:
            link.gone()
        if link is not None or self.incoming.pop((channel, handle), None) is not None:
            self.write(channel, described(amqp.DETACH, UInt(handle), True))

    # --- links ---

    def _attach(self, channel: int, attach: Described) -> None:
        handle, receives = int(attach.field(1)), attach.field(2)
        source, target = attach.field(5), attach.field(6)
        node = _node((source if receives else target).field(0, ""))
        why = self.server.refusal(node)
        if not receives:
            self._attach_incoming(channel, handle, attach, node, why)
            return
        link = Outgoing(self, channel, handle, attach.field(0), node, _text(target.field(0, "")) if target else "")
        if why is None and not node.startswith("$") and not node.endswith("$management"):
            try:
                link.queue = self.server.store.source(node)
            except NoEntity:
                why = amqp.error("amqp:not-found", f"The messaging entity '{node}' could not be found.")
        filters = source.field(7) or {}
        wants_session = any(str(name) == SESSION_FILTER for name in filters)
        if why is None and link.queue is not None and link.queue.requires_session != wants_session:
            why = amqp.error("amqp:not-allowed", "It needs a receiver of the other kind: with a session, or without.")
        if why is not None:
            self._refuse(channel, attach, why)
        elif wants_session:
            self._attach_session(link, attach, filters)
        else:
            self._attach_outgoing(link, attach)

    def _attach_incoming(self, channel: int, handle: int, attach: Described, node: str, why: Described | None) -> None:
        if why is None and not node.startswith("$") and not node.endswith("$management"):
            try:
                self.server.store.destination(node)
            except NoEntity:
                why = amqp.error("amqp:not-found", f"The messaging entity '{node}' could not be found.")
        if why is not None:
            self._refuse(channel, attach, why)
            return
        self.incoming[channel, handle] = Incoming(channel, handle, node)
        self.write(
            channel,
            described(
                amqp.ATTACH,
                attach.field(0),
                UInt(handle),
                True,
                attach.field(3),
                attach.field(4),
                attach.field(5),
                attach.field(6),
                None,
                None,
                None,
                ULong(self.server.max_message_size),
            ),
        )
        self.write_flow(channel, handle, 0, LINK_CREDIT)

    def _refuse(self, channel: int, attach: Described, why: Described) -> None:
        # AMQP 1.0 part 2, section 2.6.3: attached with no terminus, and detached at once.
        receives = attach.field(2)
        source, target = (None, attach.field(6)) if receives else (attach.field(5), None)
        count = UInt(0) if receives else None
        self.write(
            channel,
            described(
                amqp.ATTACH,
                attach.field(0),
                attach.field(1),
                not receives,
                attach.field(3),
                attach.field(4),
                source,
                target,
                None,
                None,
                count,
                ULong(self.server.max_message_size),
            ),
        )
        self.write(channel, described(amqp.DETACH, attach.field(1), True, why))

    def _attach_outgoing(self, link: Outgoing, attach: Described, source: Any = None, about: Any = None) -> None:
        link.attached = True
        self.outgoing[link.channel, link.handle] = link
        if link.queue is not None:
            link.queue.takers[link] = None
        self.write(
            link.channel,
            described(
                amqp.ATTACH,
                link.name,
                UInt(link.handle),
                False,
                attach.field(3),
                attach.field(4),
                source or attach.field(5),
                attach.field(6),
                None,
                None,
                UInt(0),
                ULong(self.server.max_message_size),
                None,
                None,
                about,
            ),
        )

    def _attach_session(self, link: Outgoing, attach: Described, filters: Any) -> None:
        wanted = next(value for name, value in filters.items() if str(name) == SESSION_FILTER)
        wanted = wanted.value if isinstance(wanted, Described) else wanted
        wanted = _text(wanted) if wanted is not None else None
        queue = link.queue
        assert queue is not None
        self.outgoing[link.channel, link.handle] = link

        def then(session: str) -> None:
            if link.timer is not None:
                link.timer.cancel()
            link.session_id = session
            source: Described = attach.field(5)
            fields = [*source.value, *[None] * (8 - len(source.value))]
            fields[7] = {Symbol(SESSION_FILTER): session}
            about = {Symbol("com.microsoft:locked-until-utc"): ticks(queue.sessions[session][1])}
            self._attach_outgoing(link, attach, Described(source.code, fields), about)

        if wanted is not None and wanted in queue.sessions:
            del self.outgoing[link.channel, link.handle]
            self._refuse(link.channel, attach, amqp.error("com.microsoft:session-cannot-be-locked", "It is taken."))
            return
        properties = {str(name): value for name, value in (attach.field(13) or {}).items()}
        wait = float(properties.get("com.microsoft:timeout") or 60_000) / 1000

        def late() -> None:
            queue.waiting.pop(link, None)
            if self.outgoing.pop((link.channel, link.handle), None) is not None:
                self._refuse(link.channel, attach, amqp.error("com.microsoft:timeout", "No session has messages."))

        link.timer = asyncio.get_running_loop().call_later(wait, late)
        queue.accept(link, wanted, then)

    # --- messages ---

    def _transfer(self, channel: int, transfer: Described, payload: bytes) -> None:
        link = self.incoming.get((channel, int(transfer.field(0))))
        if link is None:
            return
        if transfer.field(1) is not None:
            link.delivery = int(transfer.field(1))
            link.message_format = int(transfer.field(3, 0))
        link.payload += payload
        if transfer.field(5, False):
            return
        link.received += 1
        data, settled = bytes(link.payload), transfer.field(4, False)
        link.payload.clear()
        if link.received % (LINK_CREDIT // 2) == 0:
            self.write_flow(channel, link.handle, link.received, LINK_CREDIT)
        if link.node.startswith("$") or link.node.endswith("$management"):
            self._settle(channel, link.delivery, described(amqp.ACCEPTED))
            self._request(channel, link.node, data)
            return
        outcome = self.server.take(link.node, data, link.message_format)
        if not settled:
            delivery = link.delivery
            if self.server.delay:
                loop = asyncio.get_running_loop()
                loop.call_later(self.server.delay, self._settle, channel, delivery, outcome)
            else:
                self._settle(channel, delivery, outcome)

    def _settle(self, channel: int, delivery: int, outcome: Described) -> None:
        settling = described(amqp.DISPOSITION, True, UInt(delivery), UInt(delivery), True, outcome)
        self.write(channel, settling)

    def _disposition(self, channel: int, disposition: Described) -> None:
        first, last = int(disposition.field(1)), int(disposition.field(2, disposition.field(1)))
        state, settled = disposition.field(4), disposition.field(3, False)
        for link in list(self.outgoing.values()):
            if link.channel != channel or link.queue is None:
                continue
            for delivery in [one for one in range(first, last + 1) if one in link.deliveries]:
                # Report the outcome without the error that the request had: with an error it would mean a refusal.
                outcome = described(amqp.REJECTED) if int(state.code) == amqp.REJECTED else state
                try:
                    self.server.settle(link.queue, link.deliveries.pop(delivery), state)
                except LockLost:
                    outcome = described(amqp.REJECTED, amqp.error("com.microsoft:message-lock-lost", "It has expired."))
                if not settled:
                    confirmed = described(amqp.DISPOSITION, False, UInt(delivery), UInt(delivery), True, outcome)
                    self.write(channel, confirmed)

    def _request(self, channel: int, node: str, data: bytes) -> None:
        for link in self.outgoing.values():
            if link.channel == channel and link.node == node:
                reply = answer(self.server, self, node, data)
                link.send(reply, uuid.uuid4().bytes, settled=True)
                return


UShort_MAX = amqp.UShort(255)


def delivered(message: Stored) -> bytes:
    """Return a message's bytes as a receiver gets them."""
    header = amqp.section(amqp.SECTION_HEADER, [True, None, None, None, UInt(message.delivery_count)])
    annotations: dict[Any, Any] = {
        Symbol("x-opt-sequence-number"): message.sequence,
        Symbol("x-opt-enqueued-time"): Timestamp(int(message.enqueued * 1000)),
    }
    if message.token:
        annotations[Symbol("x-opt-locked-until")] = Timestamp(int(message.locked_until * 1000))
    parts = [header, amqp.section(amqp.ANNOTATIONS, annotations)]
    for code, raw in message.sections:
        if code == amqp.PROPERTIES or code >= amqp.DATA:
            if code >= amqp.DATA and message.properties:
                parts.append(amqp.section(amqp.APPLICATION_PROPERTIES, message.properties))
                message = Stored([], {})
            parts.append(raw)
    return b"".join(parts)


def _node(address: Any) -> str:
    node = _text(address)
    if "://" in node:
        node = node.split("://", 1)[1].partition("/")[2]
    return node.strip("/").lower()


def _text(value: Any) -> str:
    return bytes(value).decode() if isinstance(value, bytes) else str(value)
