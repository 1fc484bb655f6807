"""Mask secrets in texts for people: log lines, reasons of dead letters, errors of commands.

Two kinds are masked: values that a `SecretsManager` read, in the forms in which programs quote them, and texts with the
shape of a credential, such as a JWT.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import deque
from collections.abc import Hashable, Iterator
from typing import Any, Final
from urllib.parse import quote, quote_plus

from totoms.forks import in_forked_child

MASK: Final = "***"
SHORTEST: Final = 8
"""Shorter values are not masked: they are likely to occur in texts by chance."""
_VERSIONS: Final = 2
"""How many values of one secret are masked: while it is rotated, the previous one is in use as well."""
_GROUP: Final = 32
"""How many secrets are prepared together, so that a new one does not cost as much as all others."""
_MAX_LINES: Final = 200
_MAX_DEPTH: Final = 8
_MAX_REMEMBERED: Final = 1000
_MAX_REMEMBERED_LENGTH: Final = 200

# Fields of a JSON secret that identify and do not authenticate, as in the documents that AWS and Google create.
_IDENTIFIERS: Final = re.compile(
    r"(?:client_?|private_key_)?id|(?:db)?name|(?:db_?)?(?:host|user|username)|hostname|(?:client_?)?email|engine|port|"
    r"database|db|dbInstanceIdentifier|dbClusterIdentifier|region|type|project_id|"
    r"auth_uri|token_uri|auth_provider_x509_cert_url|client_x509_cert_url|universe_domain",
    re.IGNORECASE,
)

# The texts of which one is in every text of that shape, the shape, and what takes its place.
_SHAPES: Final = tuple(
    (triggers, re.compile(pattern), replacement)
    for triggers, pattern, replacement in (
        (("eyJ",), r"eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*", MASK),
        (("earer", "EARER"), r"((?i:bearer)(?:\s|%20|\+)+)[\w.~+/=-]{8,}", rf"\1{MASK}"),
        (
            ("sig=", "sig%3", "ignature", "ccessKey", "ccesskey", "ccountKey", "ccountkey", "-Token", "-token"),
            r"((?:(?<!\w)sig|(?i:(?<!\w)(?:X-(?:Amz|Goog)-Signature|X-Amz-Security-Token|SharedAccessKey|AccountKey)))"
            r"(?:=|%3[Dd]))[^&;\s\"'<>]+",
            rf"\1{MASK}",
        ),
        # The last "@" before the path ends the password, which may contain others.
        (("://",), r"(://[^\s/?#:@]*:)[^\s/?#]+@", rf"\1{MASK}@"),
    )
)


class _Group:
    """Some secrets, and the forms in which they are masked."""

    def __init__(self) -> None:
        self.values: dict[Hashable, deque[str | bytes]] = {}
        self._stale = False
        self._forms: list[str] = []
        self._beginning: re.Pattern[str] | None = None

    def changed(self) -> None:
        """Prepare again before the next text."""
        self._stale = True
        _remembered.clear()

    def apply(self, text: str) -> str:
        """Return `text` with these secrets masked."""
        if self._stale:
            self._prepare()
        # Few lines have a place that looks like the beginning of a form; to search for each form takes much longer.
        if self._beginning is not None and self._beginning.search(text):
            for form in self._forms:
                text = text.replace(form, MASK)
        return text

    def _prepare(self) -> None:
        with _lock:
            if not self._stale:  # another thread was faster
                return
            forms = {form for values in self.values.values() for value in values for form in _forms(value)}
            # The longest first: one that is a part of another must not hide it.
            self._forms = sorted(forms, key=lambda form: (-len(form), form))
            places = [sorted({form[place] for form in forms}) for place in range(SHORTEST)] if forms else []
            pattern = "".join(f"[{''.join(map(re.escape, characters))}]" for characters in places)
            self._beginning = re.compile(pattern) if forms else None
            self._stale = False  # last: until then, other threads wait for the new forms


_lock = threading.RLock()
_groups: Final[list[_Group]] = []
_places: Final[dict[Hashable, _Group]] = {}
_identifiers: Final[set[Hashable]] = set()
_remembered: Final[dict[str, str]] = {}


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it


in_forked_child(_after_fork)


def remember_secret(key: Hashable, value: bytes) -> None:
    """Mask `value` from now on, and the value before it.

    Args:
        key: The secret: its manager's class and environment, its name and its version.
        value: What the store returned. If it is a JSON document, its fields are masked as well.
    """
    text = _decoded(value)
    group = _places.get(key)
    if group is not None and (values := group.values[key]) and values[-1] == text:
        return
    with _lock:
        if key in _identifiers:
            return
        group = _places.get(key)
        if group is None:
            group = next((one for one in _groups if len(one.values) < _GROUP), None) or _Group()
            if group not in _groups:
                _groups.append(group)
            _places[key] = group
        group.values.setdefault(key, deque(maxlen=_VERSIONS)).append(text)
        group.changed()


def keep_identifier(key: Hashable) -> None:
    """Do not mask the values of a secret: it has the name of a topic, a host or a user."""
    with _lock:
        _identifiers.add(key)
        _forget(key)


def forget_secrets(environment: Any) -> None:
    """Forget the secrets of an environment that no longer exists, such as a test's."""
    with _lock:
        for key in [key for key in (*_places, *_identifiers) if isinstance(key, tuple) and environment in key]:
            _forget(key)
            _identifiers.discard(key)


def _forget(key: Hashable) -> None:
    group = _places.pop(key, None)
    if group is not None:
        del group.values[key]
        group.changed()


def mask(text: str) -> str:
    """Return `text` with ``***`` in place of secrets and credentials."""
    for group in _groups:
        text = group.apply(text)
    for triggers, pattern, replacement in _SHAPES:
        for trigger in triggers:
            if trigger in text:
                text = pattern.sub(replacement, text)
                break
    return text


def mask_again(text: str) -> str:
    """Return the same as `mask`, and remember it: for the paths of requests, which are logged again and again."""
    masked = _remembered.get(text)
    if masked is None:
        masked = mask(text)
        if len(_remembered) >= _MAX_REMEMBERED:
            _remembered.clear()
        if len(text) <= _MAX_REMEMBERED_LENGTH:
            _remembered[text] = masked
    return masked


def _decoded(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _forms(value: str | bytes) -> Iterator[str]:
    """Yield the forms in which a program may quote a secret."""
    if isinstance(value, bytes):
        if len(value) >= SHORTEST:
            yield repr(value)[2:-1]
            yield from _base64_forms(value)
        return
    whole = value.strip()
    if len(whole) >= SHORTEST:
        yield from _quoted_forms(whole)
        yield from _base64_forms(value.encode())
        yield from _base64_forms(whole.encode())
    lines = whole.splitlines()
    if len(lines) > 1:
        for line in map(str.strip, lines[:_MAX_LINES]):
            if len(line) >= SHORTEST and not line.startswith("-----"):
                yield from _quoted_forms(line)
    if whole.startswith(("{", "[")):
        for field in _fields(whole):
            yield from _forms(field)


def _quoted_forms(text: str) -> Iterator[str]:
    yield text
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield repr(text)[1:-1]
    yield repr(text.encode())[2:-1]
    for encoded in (quote(text, safe=""), quote(text), quote_plus(text)):
        yield encoded
        yield re.sub("%..", lambda match: match[0].lower(), encoded)


def _base64_forms(value: bytes) -> Iterator[str]:
    """Yield `value` in base64, alone and inside a longer text, as in ``Basic base64(user:password)``."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(value).decode()
        for before in range(3):
            encoded = encode(b"\0" * before + value).decode().rstrip("=")
            # The first and the last character may depend on the text next to the value.
            first = (0, 2, 3)[before]
            last = len(encoded) - bool((before + len(value)) % 3)
            if last - first >= SHORTEST:
                yield encoded[first:last]


def _fields(document: str) -> Iterator[str]:
    """Yield the strings of a JSON document that are not identifiers."""
    try:
        waiting: list[tuple[Any, int]] = [(json.loads(document), 0)]
    except ValueError:
        return
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list) and depth < _MAX_DEPTH:
            waiting += [(one, depth + 1) for one in value]
        elif isinstance(value, dict) and depth < _MAX_DEPTH:
            waiting += [(one, depth + 1) for name, one in value.items() if not _IDENTIFIERS.fullmatch(name)]
