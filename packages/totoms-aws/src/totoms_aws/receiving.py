"""Receiving: long polls in threads, and what becomes of a poll that nobody waits for any more.

A poll that is under way cannot be called back, and one that is broken off leaves what it brings hidden until its lease
ends. So it is let run out, and what it brings is given back. It is short, because a service that stops waits for that.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from totoms.envelope import Received, Subscription
from totoms.errors import NotFound
from totoms_aws.batches import MOST_ENTRIES
from totoms_aws.errors import told_as
from totoms_aws.leases import Leases
from totoms_aws.queues import Queues
from totoms_aws.returning import give_back
from totoms_aws.sources import Source
from totoms_aws.workers import POLLING

LONGEST_POLL: Final = 2.0
"""Seconds. SQS would wait for 20, and so would a service that stops."""
_AT_ONCE: Final = 4
"""Polls at a time while there is much to be had."""
_FIFO_AT_ONCE: Final = 10
_CLOSE_PATIENCE: Final = 4.0


class Poll:
    """One request to SQS, in a thread of its own.

    Args:
        queues: Whom to ask.
        leases: Makes of messages what the core handles, and gives them back.
        source: What to ask for.
        subscription: For whom.
        most: How many messages at most, up to ten.
        linger: For how long SQS waits for the first, in seconds.

    Attributes:
        done: What came.
    """

    def __init__(
        self, queues: Queues, leases: Leases, source: Source, subscription: Subscription, most: int, linger: float
    ) -> None:
        self.most = most
        self._queues = queues
        self._leases = leases
        self._source = source
        self._subscription = subscription
        self._linger = math.ceil(linger)
        self._lock = threading.Lock()
        self._abandoned = False
        self._brought: list[Received] = []
        self.done: Future[list[Received]] = POLLING.submit(self._run)

    def abandon(self) -> None:
        """Have what comes, or has come, given back."""
        with self._lock:
            self._abandoned = True
            come, self._brought = self._brought, []
        if come:
            self.done = POLLING.submit(self._give_back, come)

    def _run(self) -> list[Received]:
        if self._abandoned:  # before its turn came
            return []
        asked = time.monotonic()
        with told_as("the queue", self._source.name):
            answer = self._queues.sqs.receive_message(
                QueueUrl=self._source.url,
                MaxNumberOfMessages=self.most,
                WaitTimeSeconds=self._linger,
                VisibilityTimeout=self._leases.seconds,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["ApproximateReceiveCount", "MessageGroupId"],
            )
        messages: Sequence[dict[str, Any]] = answer.get("Messages") or ()
        brought = [self._leases.give(message, self._source, self._subscription, asked) for message in messages]
        if brought and time.monotonic() - asked > self._linger + self._leases.seconds / 3:
            self._leases.renew_now(brought)  # the SDK had to ask again: it hides them for longer than is known here
        with self._lock:
            if not self._abandoned:
                self._brought = brought
                return brought
        return self._give_back(brought)

    def _give_back(self, late: list[Received]) -> list[Received]:
        if late:
            give_back(self._queues, late)
        return []


@dataclass(slots=True)
class _Feed:
    source: Source
    stopping: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    much: bool = False


class Receiver:
    """Receives for the subscriptions of one bus.

    Args:
        queues: Whom to ask.
        leases: Makes of messages what the core handles.
        longest_poll: Seconds that one request waits for a message.
    """

    def __init__(self, queues: Queues, leases: Leases, longest_poll: float = LONGEST_POLL) -> None:
        self._queues = queues
        self._leases = leases
        self._longest_poll = longest_poll
        self._feeds: dict[str, _Feed] = {}
        self._late: set[Poll] = set()

    def add(self, subscription: Subscription, source: Source) -> None:
        """Be ready to receive for a subscription."""
        self._feeds[subscription.name] = _Feed(source)

    def source_of(self, name: str) -> Source | None:
        """Return where the messages of a subscription come from, if it was added."""
        feed = self._feeds.get(name)
        return feed.source if feed else None

    async def receive(self, subscription: Subscription, most: int, wait: float) -> list[Received]:
        """Return what there is, at most `most`; if there is nothing, the first that comes within `wait` seconds."""
        feed = self._feed(subscription)
        end = time.monotonic() + wait
        while not feed.stopping.done():
            remaining = max(0.0, end - time.monotonic())
            batch = await self._poll(feed, subscription, most, min(remaining, self._longest_poll))
            if batch or not remaining:
                return batch
        return []

    def stop(self, subscription: Subscription) -> None:
        """Have :meth:`receive` return at once, with what has come."""
        stopping = self._feed(subscription).stopping
        if not stopping.done():
            stopping.set_result(None)

    async def close(self) -> None:
        """Stop all, and wait until what came too late is given back."""
        for feed in self._feeds.values():
            if not feed.stopping.done():
                feed.stopping.set_result(None)
        late = [asyncio.wrap_future(poll.done) for poll in self._late if not poll.done.done()]
        if late:
            await asyncio.wait([asyncio.gather(*late, return_exceptions=True)], timeout=_CLOSE_PATIENCE)

    async def _poll(self, feed: _Feed, subscription: Subscription, most: int, linger: float) -> list[Received]:
        each = 1 if feed.source.fifo else MOST_ENTRIES  # of one group SQS would give several, to be handled together
        number = 1
        if feed.much:  # SQS gives at most ten at once: ask several times, and do not wait
            number, linger = min(math.ceil(most / each), _FIFO_AT_ONCE if feed.source.fifo else _AT_ONCE), 0.0
        polls = []
        for left in range(most, max(0, most - number * each), -each):
            polls.append(Poll(self._queues, self._leases, feed.source, subscription, min(each, left), linger))
        # Never cancelled: what the polls bring is given back, and whatever they raise is heard.
        answered = asyncio.gather(*(asyncio.wrap_future(poll.done) for poll in polls), return_exceptions=True)
        try:
            waiting: set[asyncio.Future[Any]] = {answered, feed.stopping}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._abandon(polls)
            raise
        if not answered.done():
            self._abandon(polls)
            return []
        came: list[Received] = []
        feed.much = False
        for poll, answer in zip(polls, answered.result(), strict=True):
            if isinstance(answer, list):
                came += answer
                feed.much = feed.much or len(answer) == poll.most
        failures = [answer for answer in answered.result() if isinstance(answer, BaseException)]
        if failures and not came:
            raise failures[0]
        return came

    def _abandon(self, polls: list[Poll]) -> None:
        for poll in polls:
            poll.abandon()
            self._late.add(poll)
        self._late = {poll for poll in self._late if not poll.done.done()}

    def _feed(self, subscription: Subscription) -> _Feed:
        feed = self._feeds.get(subscription.name)
        if feed is None:
            raise NotFound(f"This bus has not subscribed {subscription.name!r}.", resource=subscription.name)
        return feed
