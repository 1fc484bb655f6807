"""Names of topics and subscriptions: bare ones, and paths with the project in them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from totoms.errors import NotFound

DEAD: Final = "-dead"
REPLAY: Final = "-replay"
# https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
_BARE: Final = re.compile(r"[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
_PATH: Final = re.compile(r"projects/([a-z0-9.:-]{4,100})/(topics|subscriptions)/([A-Za-z][A-Za-z0-9._~+%-]{2,254})")


class Companion(NamedTuple):
    """A topic and its only subscription, made for another subscription: for its dead letters, or for their replay."""

    topic: str
    subscription: str


def topic_path(project: str, topic: str) -> str:
    """Return ``projects/…/topics/…`` for a bare name or such a path.

    Raises:
        NotFound: Pub/Sub allows no such name.
    """
    return _path(project, "topic", topic)


def subscription_path(project: str, subscription: str) -> str:
    """Return ``projects/…/subscriptions/…`` for a bare name or such a path.

    Raises:
        NotFound: Pub/Sub allows no such name.
    """
    return _path(project, "subscription", subscription)


def companion(path: str, suffix: str) -> Companion:
    """Return the paths of what belongs to the subscription `path` and is called like it, with `DEAD` or `REPLAY`."""
    _, project, _, name = path.split("/")
    return Companion(f"projects/{project}/topics/{name}{suffix}", f"{path}{suffix}")


def _path(project: str, kind: str, name: str) -> str:
    if _BARE.fullmatch(name):
        return f"projects/{project}/{kind}s/{name}"
    match = _PATH.fullmatch(name)
    if match is None or match[2] != f"{kind}s":
        raise NotFound(f"There is no {kind} {name!r}: Pub/Sub allows no such name.", resource=name)
    return name
