"""AMQP over WebSockets, as a namespace of Service Bus takes it: each binary frame holds bytes of the AMQP connection.

http://docs.oasis-open.org/amqp-bindmap/amqp-wsb/v1.0/amqp-wsb-v1.0.html
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import Mapping

PATH = "/$servicebus/websocket"
PROTOCOL = "AMQPWSB10"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x2, 0x8, 0x9, 0xA


async def serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: Mapping[str, str], port: int
) -> None:
    """Answer the handshake (RFC 6455, section 4.2.2), and pass on what comes to the AMQP server at `port`.

    Args:
        reader: Of the client.
        writer: Of the client.
        headers: Of its request, names in lower case.
        port: On this machine.
    """
    protocols = [one.strip() for one in headers.get("sec-websocket-protocol", "").split(",")]
    if headers.get("upgrade", "").lower() != "websocket" or PROTOCOL not in protocols:
        writer.write(b"HTTP/1.1 400 -\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        return
    key = headers["sec-websocket-key"].encode()
    accepted = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
    writer.write(
        (
            "HTTP/1.1 101 -\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accepted}\r\nSec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n"
        ).encode()
    )
    to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await asyncio.gather(_unframe(reader, writer, to_writer), _frame(to_reader, writer))
    finally:
        to_writer.close()


async def _unframe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            first, second = await reader.readexactly(2)
            length = second & 0x7F
            if length >= 126:
                length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
            mask = await reader.readexactly(4)
            masked = await reader.readexactly(length)
            whole = (mask * (length // 4 + 1))[:length]
            data = (int.from_bytes(masked, "big") ^ int.from_bytes(whole, "big")).to_bytes(length, "big")
            match first & 0x0F:
                case code if code in (_CONTINUATION, _BINARY):
                    to_writer.write(data)
                    await to_writer.drain()
                case code if code == _PING:
                    writer.write(_head(_PONG, len(data)) + data)
                case code if code == _CLOSE:
                    writer.write(_head(_CLOSE, len(data)) + data)
                    break
    to_writer.close()


async def _frame(from_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await from_reader.read(65536):
            writer.write(_head(_BINARY, len(data)) + data)
            await writer.drain()
    writer.close()


def _head(code: int, length: int) -> bytes:
    """Return what comes before the bytes of a frame that is whole, from a server: without a mask."""
    if length < 126:
        return bytes((0x80 | code, length))
    if length < 65536:
        return bytes((0x80 | code, 126)) + length.to_bytes(2, "big")
    return bytes((0x80 | code, 127)) + length.to_bytes(8, "big")
