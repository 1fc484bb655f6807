"""Names of topics, queues and message groups, and what can be read from them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

FIFO: Final = ".fifo"
_DEAD: Final = "-dead"
_MAX_QUEUE_NAME: Final = 80
"""https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html"""
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")
_TOPIC: Final = re.compile(r"[A-Za-z0-9_-]{1,256}(?:\.fifo)?")
_TOPIC_ARN: Final = re.compile(rf"arn:(aws[a-z-]*):sns:([a-z0-9-]+):([0-9]{{12}}):({_TOPIC.pattern})")
_GROUP: Final = re.compile(r"[A-Za-z0-9!-/:-@\[-`{-~]{1,128}")


@dataclass(frozen=True, slots=True)
class TopicArn:
    """The parts of a topic's ARN; `str` gives the whole."""

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
    """Return whether SNS allows this as the name of a topic."""
    return _TOPIC.fullmatch(identifier) is not None


def is_fifo(name: str) -> bool:
    """Return whether a topic or queue, given by its name, ARN or URL, keeps order. SNS and SQS require the suffix."""
    return name.endswith(FIFO)


def is_url(queue: str) -> bool:
    """Return whether a queue is given by its URL."""
    return queue.startswith(("https://", "http://"))


def queue_name(name: str, *, fifo: bool = False) -> str:
    """Return the queue's name for a subscription, or for what a service calls a queue.

    A name that SQS allows is kept. In another one, the characters that SQS does not allow are replaced, and a part of
    its hash is added, so that no two subscriptions share a queue.
    """
    stem, suffix = name.removesuffix(FIFO), FIFO if fifo or is_fifo(name) else ""
    longest = _MAX_QUEUE_NAME - len(suffix)
    if not stem or len(stem) > longest or _NOT_IN_A_NAME.search(stem):
        digest = hashlib.sha256(stem.encode("utf-8", "surrogatepass")).hexdigest()[:10]
        stem = f"{_NOT_IN_A_NAME.sub('-', stem)[: longest - len(digest) - 1]}-{digest}"
    return stem + suffix


def dead_queue_name(queue: str) -> str:
    """Return the name of the queue with a queue's dead letters."""
    return queue_name(f"{queue.removesuffix(FIFO)}{_DEAD}", fifo=is_fifo(queue))


def subscription_of(dead_queue: str) -> str:
    """Return the name of the subscription whose dead letters are in a queue; "" if the queue is not one for them."""
    stem = dead_queue.removesuffix(FIFO)
    return stem.removesuffix(_DEAD) if stem.endswith(_DEAD) else ""


def undelivered_queue_name(queue: str) -> str:
    """Return the name of the queue with the messages that SNS could not push."""
    return queue_name(f"{queue.removesuffix(FIFO)}-undelivered", fifo=is_fifo(queue))


def message_group(ordering_key: str) -> str:
    """Return the message group for an ordering key: the key itself where AWS allows it, else its hash."""
    if _GROUP.fullmatch(ordering_key):
        return ordering_key
    return hashlib.sha256(ordering_key.encode("utf-8", "surrogatepass")).hexdigest()
