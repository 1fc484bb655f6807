"""What things of SNS and SQS are called, and what their names say."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

FIFO: Final = ".fifo"
_LONGEST_QUEUE: Final = 80  # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html
_UNUSABLE: Final = re.compile(r"[^A-Za-z0-9_-]")
_TOPIC: Final = re.compile(r"[A-Za-z0-9_-]{1,256}(?:\.fifo)?")
_TOPIC_ARN: Final = re.compile(rf"arn:(aws[a-z-]*):sns:([a-z0-9-]+):([0-9]{{12}}):({_TOPIC.pattern})")
_GROUP: Final = re.compile(r"[A-Za-z0-9!-/:-@\[-`{-~]{1,128}")


@dataclass(frozen=True, slots=True)
class TopicArn:
    """A topic's ARN in its parts; `str` gives it whole."""

    partition: str
    region: str
    account: str
    name: str

    def __str__(self) -> str:
        return f"arn:{self.partition}:sns:{self.region}:{self.account}:{self.name}"


def parse_topic(identifier: str) -> TopicArn | None:
    """Return the parts of a topic's ARN; None for anything else."""
    found = _TOPIC_ARN.fullmatch(identifier)
    return TopicArn(*found.groups()) if found else None


def is_topic_name(identifier: str) -> bool:
    """Tell whether a topic may be called so."""
    return _TOPIC.fullmatch(identifier) is not None


def is_fifo(name: str) -> bool:
    """Tell whether a topic or queue, given by its name, ARN or URL, keeps order; the name must say so."""
    return name.endswith(FIFO)


def is_url(queue: str) -> bool:
    """Tell whether a queue is given by its URL."""
    return queue.startswith(("https://", "http://"))


def queue_name(name: str, *, fifo: bool = False) -> str:
    """Return the name of the queue for a subscription, or for what a service calls a queue.

    A name that SQS allows is kept. Of another one what is allowed is kept, with a part of its hash, so that no two
    subscriptions share a queue.
    """
    stem, suffix = name.removesuffix(FIFO), FIFO if fifo or is_fifo(name) else ""
    longest = _LONGEST_QUEUE - len(suffix)
    if not stem or len(stem) > longest or _UNUSABLE.search(stem):
        digest = hashlib.sha256(stem.encode("utf-8", "surrogatepass")).hexdigest()[:10]
        stem = f"{_UNUSABLE.sub('-', stem)[: longest - len(digest) - 1]}-{digest}"
    return stem + suffix


def dead_queue_name(queue: str) -> str:
    """Return what the queue with a queue's dead letters is called."""
    return queue_name(f"{queue.removesuffix(FIFO)}-dead", fifo=is_fifo(queue))


def group_of(ordering_key: str) -> str:
    """Return the message group for an ordering key: the key itself where AWS allows it as a name, else its hash."""
    if _GROUP.fullmatch(ordering_key):
        return ordering_key
    return hashlib.sha256(ordering_key.encode("utf-8", "surrogatepass")).hexdigest()
