"""Fake values for payloads: of the same type, length and kind, so that a handler treats them alike.

Names, structure, booleans, null and zeros stay. Equal values get equal fakes in one export.
"""

from __future__ import annotations

import json
import math
import random
import re
import secrets
import string
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

from totoms.messages.dead_letters import DeadLetter, place_of
from totoms.messages.events import VERSION_ATTRIBUTE
from totoms.messages.message import (
    CONTENT_TYPE_ATTRIBUTE,
    ID_ATTRIBUTE,
    TRACEPARENT_ATTRIBUTE,
    TYPE_ATTRIBUTE,
)

_KEPT_FIELDS: Final = ("timestamp", "cid", "type")
_KEPT_ATTRIBUTES: Final = (
    CONTENT_TYPE_ATTRIBUTE,
    ID_ATTRIBUTE,
    TRACEPARENT_ATTRIBUTE,
    TYPE_ATTRIBUTE,
    VERSION_ATTRIBUTE,
)
_UUID: Final = re.compile(
    r"([0-9a-fA-F]{8})(-?)([0-9a-fA-F]{4})\2([0-9a-fA-F]{4})\2([0-9a-fA-F]{4})\2([0-9a-fA-F]{12})"
)
_TIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:([T ])(\d\d):(\d\d)(?::(\d\d)(?:([.,])(\d{1,9}))?)?(Z|[+-]\d\d:?\d\d)?)?"
)
_EMAIL: Final = re.compile(r"([^@\s]+@(?:[^@\s.]+\.)+)([^@\s.]+)")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WIDE: Final = {2: ("ä", "Ä"), 3: ("字", "字"), 4: ("𐐨", "𐐀")}
"""A small and a capital letter for each length in UTF-8."""
_MONTHS: Final = ("01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12")
_Draw = Callable[[Sequence[str]], str]


class Fakes:
    """Makes the fakes of one export. Each export has other fakes, so that a value cannot be guessed by trying."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def dead_letter(self, dead_letter: DeadLetter) -> DeadLetter:
        """Return a dead letter with fake values in place of what its publisher sent.

        The type, the correlation id and the time of the message stay, and so do the attributes that totoms sets. Of the
        description only the place stays, because the text of an exception may quote a value.
        """
        place = place_of(dead_letter.reason)
        description = dead_letter.reason.description
        reason = replace(dead_letter.reason, description=description[description.rindex("(at ") :] if place else "")
        attributes = {
            name: value if name in _KEPT_ATTRIBUTES else self.text(value)
            for name, value in dead_letter.attributes.items()
        }
        return replace(dead_letter, reason=reason, attributes=attributes, body=self.body(dead_letter.body))

    def body(self, body: bytes) -> bytes:
        """Return the body of a message with fake values. One that is not JSON stays so."""
        try:
            text = body.decode()
        except UnicodeDecodeError:
            # It stays invalid: a byte that is not ASCII becomes one that UTF-8 never has.
            draw = self._draws(body.decode("latin-1"))
            return bytes(ord(_letter(chr(one), draw)) if one < 128 else 255 for one in body)
        try:
            found = json.loads(text)
            if isinstance(found, dict):
                kept = {name: found[name] for name in _KEPT_FIELDS if isinstance(found.get(name), str)}
                found = {name: kept[name] if name in kept else self.value(value) for name, value in found.items()}
            else:
                found = self.value(found)
            return json.dumps(found, ensure_ascii="\\u" in text, separators=(",", ":")).encode()
        except (ValueError, RecursionError):
            return self._letters(text).encode()

    def value(self, value: Any) -> Any:
        """Return a fake of a JSON value."""
        if isinstance(value, dict):
            return {name: self.value(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self.value(one) for one in value]
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return value
        mantissa, exponent, power = repr(value).partition("e")
        made = type(value)(self._letters(mantissa) + exponent + power)
        return made if math.isfinite(made) else math.copysign(1e308, made)

    def text(self, text: str) -> str:
        """Return a fake of a text: of the same length, and a UUID, a time or an address if it is one."""
        draw = self._draws(text)
        if match := _UUID.fullmatch(text):
            groups = [*match.groups()]
            dash = groups.pop(1)
            for number, group in enumerate(groups):
                kept = group[: number in (2, 3)]  # the first digits of these are the version and the variant
                groups[number] = kept + _hex(len(group) - len(kept), text.isupper(), draw)
            return dash.join(groups)
        if (match := _TIME.fullmatch(text)) and _is_time(text):
            return _time(match, draw)
        if match := _EMAIL.fullmatch(text):
            return self._letters(match[1]) + ("xx" + "q" * len(match[2]))[: len(match[2])]  # no such domain exists
        scheme = _SCHEME.match(text)
        start = scheme.end() if scheme else 0
        return text[:start] + self._letters(text[start:])

    def _letters(self, text: str) -> str:
        draw = self._draws(text)
        return "".join(_letter(one, draw) for one in text)

    def _draws(self, text: str) -> _Draw:
        seed = blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).digest()
        return random.Random(seed).choice


def _letter(one: str, draw: _Draw) -> str:
    """Return another letter or digit of the same kind; other characters stay, and so does zero."""
    if one.isdecimal():
        return chr(ord(one) - int(one) + int(draw("123456789"))) if int(one) else one
    if not one.isalpha():
        return one
    if one.isascii():
        return draw(string.ascii_uppercase if one.isupper() else string.ascii_lowercase)
    return _WIDE[len(one.encode())][one.isupper()]


def _hex(number: int, upper: bool, draw: _Draw) -> str:
    return "".join(draw("0123456789ABCDEF" if upper else "0123456789abcdef") for _ in range(number))


def _time(match: re.Match[str], draw: _Draw) -> str:
    _year, _month, _day, divider, hour, _minute, second, point, fraction, zone = match.groups()
    made = f"20{draw('012')}{draw(string.digits)}-{draw(_MONTHS)}-{draw('012')}{draw('12345678')}"
    if hour:
        made += f"{divider}{draw('01')}{draw(string.digits)}:{draw('012345')}{draw(string.digits)}"
    if second:
        made += f":{draw('012345')}{draw(string.digits)}"
    if fraction:
        made += point + "".join(draw(string.digits) for _ in fraction)
    return made + (zone or "")


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
