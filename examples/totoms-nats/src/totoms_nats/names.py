"""What things are called at NATS. Every name of ours has one there, and no two have the same.

A subject is made of tokens between dots. A token, and the name of a stream or consumer, may not hold dots, white space,
``*``, ``>`` or slashes (https://docs.nats.io/nats-concepts/subjects), so those are written as their bytes: ``=2E``.
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


def key(name: str) -> str:
    """Return the name of a secret as a key: plain where a key may be, so that ``nats kv put secrets api/key`` works."""
    # A dot parts tokens, and none may be empty.
    return ".".join(_escape(part, _PLAIN_IN_KEYS) for part in name.split(".")) if _dots_part(name) else token(name)


def _dots_part(name: str) -> bool:
    return all(name.split("."))


def _escape(name: str, plain: re.Pattern[bytes]) -> str:
    parts = (bytes((byte,)) for byte in name.encode())
    return "".join(part.decode() if plain.match(part) else f"={part[0]:02X}" for part in parts)


def is_topic(subject: str) -> bool:
    """Tell whether `subject` can be published to: no wildcard, no empty token, none of the server's own."""
    return _TOPIC.fullmatch(subject) is not None and not subject.startswith("_INBOX.")


class Names:
    """The names of what one installation has.

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
        """The subject of a queue, and of what is delivered again to one subscription; ``*`` for all."""
        return f"{self._subject}totoms.queue.{name if name == '*' else token(name)}"

    def dead_subject(self, name: str) -> str:
        """The subject of a subscription's dead letters; ``*`` for all."""
        return f"{self._subject}totoms.dead.{name if name == '*' else token(name)}"

    def bucket(self, name: str) -> str:
        """The object store of a bucket. It takes no dots; our buckets have no capitals."""
        return self._stream + name.replace(".", "DOT")
