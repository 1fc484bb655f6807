"""Names of streams, subjects, buckets and keys. Different names in totoms have different ones in NATS.

A subject consists of tokens with dots between them. A token, and the name of a stream or consumer, may not contain
dots, white space, ``*``, ``>`` or slashes (https://docs.nats.io/nats-concepts/subjects); each byte of those is written
as ``=2E``.
"""

from __future__ import annotations

import re
from typing import Final

_PLAIN: Final = re.compile(rb"[A-Za-z0-9_-]")
_PLAIN_IN_KEYS: Final = re.compile(rb"[A-Za-z0-9_/-]")
_TOPIC: Final = re.compile(r"[^\s.*>$\x00-\x1f\x7f-\x9f][^\s.*>\x00-\x1f\x7f-\x9f]*(\.[^\s.*>\x00-\x1f\x7f-\x9f]+)*")


def token(name: str) -> str:
    """Return a name as one token."""
    return _escape(name, _PLAIN)


def name_of(token: str) -> str:
    """Return the name that `token` made into a token."""
    return re.sub(rb"=([0-9A-F]{2})", lambda found: bytes((int(found[1], 16),)), token.encode()).decode()


def key(name: str) -> str:
    """Return the name of a secret as a key; most stay as they are, so that ``nats kv put secrets api/key`` works."""
    parts = name.split(".")
    # Dots separate tokens, and no token may be empty.
    return ".".join(_escape(part, _PLAIN_IN_KEYS) for part in parts) if all(parts) else token(name)


def _escape(name: str, plain: re.Pattern[bytes]) -> str:
    parts = (bytes((byte,)) for byte in name.encode())
    return "".join(part.decode() if plain.match(part) else f"={part[0]:02X}" for part in parts)


def is_topic(subject: str) -> bool:
    """Return whether `subject` can be published to: no wildcard, no empty token, none of the server's own."""
    return _TOPIC.fullmatch(subject) is not None and not subject.startswith("_INBOX.")


class Names:
    """The names that one installation uses.

    Args:
        prefix: What they begin with.
    """

    def __init__(self, prefix: str) -> None:
        self._stream = f"{prefix}_" if prefix else ""
        self._subject = f"{prefix}." if prefix else ""
        self.queues = f"{self._stream}totoms-queues"
        self.dead = f"{self._stream}totoms-dead"
        self.attempts = f"{self._stream}totoms-attempts"
        self.secrets = f"{self._stream}secrets"

    def queue_subject(self, name: str) -> str:
        """The subject of a queue, and of what is replayed to one subscription; ``*`` for all."""
        return f"{self._subject}totoms.queue.{name if name == '*' else token(name)}"

    def dead_subject(self, name: str) -> str:
        """The subject of a subscription's dead letters; ``*`` for all."""
        return f"{self._subject}totoms.dead.{name if name == '*' else token(name)}"

    def bucket(self, name: str) -> str:
        """The object store of a bucket. Its name may have no dots; names of buckets have no capitals."""
        return self._stream + name.replace(".", "DOT")
