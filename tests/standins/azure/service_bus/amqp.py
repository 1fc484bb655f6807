"""AMQP 1.0 as a server speaks it: types, frames and the sections of a message.

http://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-types-v1.0-os.html
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

SASL_HEADER = b"AMQP\x03\x01\x00\x00"
HEADER = b"AMQP\x00\x01\x00\x00"
OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH, END, CLOSE = range(0x10, 0x19)
SASL_MECHANISMS, SASL_INIT, SASL_OUTCOME = 0x40, 0x41, 0x44
RECEIVED, ACCEPTED, REJECTED, RELEASED, MODIFIED = range(0x23, 0x28)
ERROR, SOURCE, TARGET = 0x1D, 0x28, 0x29
SECTION_HEADER, ANNOTATIONS, PROPERTIES, APPLICATION_PROPERTIES = 0x70, 0x72, 0x73, 0x74
DATA, VALUE = 0x75, 0x77
BATCH_FORMAT = 0x80013700


class Symbol(str):
    __slots__ = ()


class UInt(int):
    __slots__ = ()


class ULong(int):
    __slots__ = ()


class UShort(int):
    __slots__ = ()


class UByte(int):
    __slots__ = ()


class Timestamp(int):
    """Milliseconds since the epoch."""

    __slots__ = ()


class Described:
    """A value with a descriptor: a performative, an outcome, a filter."""

    __slots__ = ("code", "value")

    def __init__(self, code: Any, value: Any) -> None:
        self.code, self.value = code, value

    def field(self, index: int, default: Any = None) -> Any:
        """Return a field of a list, which may be shorter."""
        fields = self.value
        value = fields[index] if isinstance(fields, list) and index < len(fields) else None
        return default if value is None else value


# --- from bytes ---

_FIXED: dict[int, tuple[int, Any]] = {
    0x50: (1, lambda b: UByte(b[0])),
    0x51: (1, lambda b: struct.unpack(">b", b)[0]),
    0x52: (1, lambda b: UInt(b[0])),
    0x53: (1, lambda b: ULong(b[0])),
    0x54: (1, lambda b: struct.unpack(">b", b)[0]),
    0x55: (1, lambda b: struct.unpack(">b", b)[0]),
    0x56: (1, lambda b: b[0] == 1),
    0x60: (2, lambda b: UShort(int.from_bytes(b, "big"))),
    0x61: (2, lambda b: struct.unpack(">h", b)[0]),
    0x70: (4, lambda b: UInt(int.from_bytes(b, "big"))),
    0x71: (4, lambda b: struct.unpack(">i", b)[0]),
    0x72: (4, lambda b: struct.unpack(">f", b)[0]),
    0x80: (8, lambda b: ULong(int.from_bytes(b, "big"))),
    0x81: (8, lambda b: struct.unpack(">q", b)[0]),
    0x82: (8, lambda b: struct.unpack(">d", b)[0]),
    0x83: (8, lambda b: Timestamp(struct.unpack(">q", b)[0])),
    0x98: (16, lambda b: uuid.UUID(bytes=bytes(b))),
}
_EMPTY: dict[int, Any] = {0x40: None, 0x41: True, 0x42: False, 0x43: UInt(0), 0x44: ULong(0)}
_TEXTS: dict[int, Any] = {
    0x0: bytes,
    0x1: lambda b: bytes(b).decode(),
    0x3: lambda b: Symbol(bytes(b).decode("latin-1")),
}


def decode(data: bytes, at: int = 0) -> tuple[Any, int]:
    """Return the value that begins at a place, and where it ends."""
    code = data[at]
    at += 1
    if code == 0x00:
        descriptor, at = decode(data, at)
        value, at = decode(data, at)
        return Described(descriptor, value), at
    return _decode(code, data, at)


def _decode(code: int, data: bytes, at: int) -> tuple[Any, int]:
    if code in _EMPTY:
        return _EMPTY[code], at
    if code == 0x45:
        return [], at
    if code in _FIXED:
        size, make = _FIXED[code]
        return make(data[at : at + size]), at + size
    wide = 4 if code & 0x10 else 1
    if code >> 4 in (0xA, 0xB):
        size = int.from_bytes(data[at : at + wide], "big")
        at += wide
        return _TEXTS[code & 0xF](data[at : at + size]), at + size
    size = int.from_bytes(data[at : at + wide], "big")
    end = at + wide + size
    count = int.from_bytes(data[at + wide : at + 2 * wide], "big")
    at += 2 * wide
    values = []
    if code >> 4 in (0xE, 0xF):
        inner = data[at]
        at += 1
        for _ in range(count):
            value, at = _decode(inner, data, at)
            values.append(value)
        return values, end
    for _ in range(count):
        value, at = decode(data, at)
        values.append(value)
    return (dict(zip(values[::2], values[1::2], strict=True)) if code & 0xF == 1 else values), end


# --- to bytes ---


def encode(value: Any) -> bytes:
    """Return a value's bytes. The type says how: int is a long, bytes binary, list a list."""
    for kind, how in _ENCODERS:
        if isinstance(value, kind):
            encoded: bytes = how(value)
            return encoded
    raise TypeError(type(value).__name__)


def _sized(short: int, data: bytes) -> bytes:
    if len(data) < 256:
        return bytes((short, len(data))) + data
    return bytes((short + 0x10,)) + len(data).to_bytes(4, "big") + data


def _compound(code: int, values: Sequence[Any]) -> bytes:
    body = b"".join(map(encode, values))
    return bytes((code,)) + (len(body) + 4).to_bytes(4, "big") + len(values).to_bytes(4, "big") + body


def array_of(code: int, items: Sequence[bytes]) -> bytes:
    """Return an array of items of one type, given its code and each one's bytes without it."""
    body = len(items).to_bytes(4, "big") + bytes((code,)) + b"".join(items)
    return b"\xf0" + len(body).to_bytes(4, "big") + body


class Raw(bytes):
    """What is encoded already."""

    __slots__ = ()


_ENCODERS: tuple[tuple[Any, Any], ...] = (
    (type(None), lambda _: b"\x40"),
    (bool, lambda v: b"\x41" if v else b"\x42"),
    (Raw, bytes),
    (UInt, lambda v: bytes((0x52, v)) if v < 256 else b"\x70" + int(v).to_bytes(4, "big")),
    (ULong, lambda v: bytes((0x53, v)) if v < 256 else b"\x80" + int(v).to_bytes(8, "big")),
    (UShort, lambda v: b"\x60" + int(v).to_bytes(2, "big")),
    (UByte, lambda v: b"\x50" + int(v).to_bytes(1, "big")),
    (Timestamp, lambda v: b"\x83" + struct.pack(">q", v)),
    (int, lambda v: b"\x81" + struct.pack(">q", v)),
    (float, lambda v: b"\x82" + struct.pack(">d", v)),
    (Symbol, lambda v: _sized(0xA3, v.encode("latin-1"))),
    (str, lambda v: _sized(0xA1, v.encode())),
    (bytes, lambda v: _sized(0xA0, v)),
    (uuid.UUID, lambda v: b"\x98" + v.bytes),
    (Described, lambda v: b"\x00" + encode(v.code) + encode(v.value)),
    (Mapping, lambda v: _compound(0xD1, [part for pair in v.items() for part in pair])),
    (list, lambda v: _compound(0xD0, v)),
)


def described(code: int, *fields: Any) -> Described:
    """Return a list with a descriptor that is a number, as performatives and outcomes are."""
    return Described(ULong(code), list(fields))


def error(condition: str, description: str = "") -> Described:
    """Return an error."""
    return described(ERROR, Symbol(condition), description, {})


def frame(channel: int, performative: Described, payload: bytes = b"", *, sasl: bool = False) -> bytes:
    """Return a frame's bytes."""
    body = encode(performative) + payload
    return struct.pack(">IBBH", len(body) + 8, 2, 1 if sasl else 0, channel) + body


def sections(data: bytes) -> list[tuple[int, bytes]]:
    """Return the sections of a message, each with its code and its bytes."""
    found, at = [], 0
    while at < len(data):
        start = at
        code, begin = decode(data, at + 1)
        at = _skip(data, begin)
        found.append((int(code), data[start:at]))
    return found


def _skip(data: bytes, at: int) -> int:
    code = data[at]
    if code >> 4 in (0xA, 0xC, 0xE):
        return at + 2 + data[at + 1]
    if code >> 4 in (0xB, 0xD, 0xF):
        return at + 5 + int.from_bytes(data[at + 1 : at + 5], "big")
    return decode(data, at)[1]


def section_value(section: bytes) -> Any:
    """Return what a section holds."""
    return decode(section)[0].value


def section(code: int, value: Any) -> bytes:
    """Return a section's bytes."""
    return encode(Described(ULong(code), value))
