"""Names of Pub/Sub: bare ones, and paths with the project in them."""

from __future__ import annotations

import re
from typing import Final

from totoms.errors import NotFound

_BARE: Final = re.compile(r"[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
_PATH: Final = re.compile(r"projects/([a-z0-9.:-]{4,100})/(topics|subscriptions)/([A-Za-z][A-Za-z0-9._~+%-]{2,254})")
DEAD: Final = "-dead"
REPLAY: Final = "-replay"


def topic_path(project: str, topic: str) -> str:
    """Return ``projects/…/topics/…`` for a bare name or such a path.

    Raises:
        NotFound: It is neither, so there can be no such topic
            (https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names).
    """
    return _path(project, "topics", "topic", topic)


def subscription_path(project: str, subscription: str) -> str:
    """Return ``projects/…/subscriptions/…`` for a bare name or such a path.

    Raises:
        NotFound: It is neither.
    """
    return _path(project, "subscriptions", "subscription", subscription)


def beside(path: str, ending: str) -> tuple[str, str]:
    """Return the topic and the subscription that belong to a subscription: its name with `ending`."""
    project, name = path.split("/")[1], path.split("/")[3]
    return f"projects/{project}/topics/{name}{ending}", f"{path}{ending}"


def _path(project: str, kind: str, what: str, name: str) -> str:
    if _BARE.fullmatch(name):
        return f"projects/{project}/{kind}/{name}"
    match = _PATH.fullmatch(name)
    if match is None or match[2] != kind:
        raise NotFound(f"There is no {what} {name!r}: Pub/Sub knows no such name.", resource=name)
    return name
