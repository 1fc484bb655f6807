"""The message bus of the local backend: a real broker's semantics in one SQLite file.

Durable (``publish_message`` returns after a flushed commit), shared by all processes that have the same root folder,
with leases, attempts, backoff, delay, ordering keys and dead letters.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from totoms.bus import DEAD_LETTERS, DELAY, ORDERING, PULL, PUSH, QUEUES, MessageBus
from totoms.envelope import DeadLetter, DeadLetterReason, DeliveryMode, Outgoing, PushReply, PushRequest, Received
from totoms.envelope import Subscription as CoreSubscription
from totoms.environment import TotoEnvironment
from totoms.errors import BackendError, Closed, LeaseLost, NotFound, ValidationError
from totoms.local import letters, pushes, rows
from totoms.local.database import Database
from totoms.local.feed import Feed
from totoms.local.writer import Operation, Writer

_writers: Final[dict[Path, Writer]] = {}
_guard: Final = threading.Lock()


class LocalMessageBus(MessageBus):
    """Messages in ``<root>/bus.sqlite3``. Constructing it does no I/O.

    A topic exists when the configuration names it; a queue, when it is first used. What is published to a topic
    without subscriptions is not kept, as on every broker.

    Attributes:
        lease_seconds: How long a lease lasts. The core renews those of messages that are being handled.
    """

    capabilities = frozenset({PULL, PUSH, ORDERING, DELAY, QUEUES, DEAD_LETTERS})
    default_delivery: ClassVar[DeliveryMode] = "pull"
    lease_seconds: ClassVar[float] = 30.0

    def __init__(self, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> None:
        super().__init__(environment, topics)
        self._root = Path(self.environment.hyperscaler_configuration.root)
        self._writer: Writer | None = None
        self._feeds: dict[str, Feed] = {}

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        for outgoing in batch:
            _check_text("ordering key", outgoing.ordering_key)
            _check_text("name of a queue", outgoing.queue)
        await self._writer_of().do(Operation(published=batch))
        return [None] * len(batch)

    async def _subscribe(self, subscription: CoreSubscription, *, create: bool) -> None:
        row = await self._do(partial(self._find_or_make, subscription, create))
        feed, before = Feed(row, subscription, self.lease_seconds), self._feeds.get(subscription.name)
        if before is not None:  # what it still holds is settled through the new one
            feed.token, feed.leases = before.token, before.leases
            self._writer_of().remove(before)
        self._feeds[subscription.name] = feed
        if subscription.delivery == "pull":
            self._writer_of().add(feed)

    def _find_or_make(self, subscription: CoreSubscription, create: bool, connection: Any) -> int:
        topic = subscription.topic or None  # without one it is a queue
        if not create:
            found = rows.find_subscription(connection, subscription.name)
            if found is None or topic not in (found[1], None):
                what = f"queue {subscription.name!r}"
                if topic:
                    what = f"subscription {subscription.name!r} to the topic {topic!r}"
                raise NotFound(f"There is no {what}, and create_subscriptions is off.", resource=subscription.name)
            return found[0]
        self._writer_of().refresh()
        return rows.add_subscription(connection, subscription.name, topic, ordered=subscription.ordered)

    async def _receive(self, subscription: CoreSubscription, max_messages: int, wait: float) -> list[Received]:
        feed, writer = self._feed(subscription.name), self._writer_of()
        receiving = feed.receive(max_messages, wait)
        if feed.backlog or feed.next_due <= writer.clock():
            asyncio.get_running_loop().call_soon(writer.nudge)
        try:
            batch = await receiving
        except asyncio.CancelledError:
            writer.release(feed, feed.abandon())
            raise
        writer.release(feed, feed.surplus())
        return batch

    async def _stop_receiving(self, subscription: CoreSubscription) -> None:
        self._feed(subscription.name).stop()

    async def _ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        feed = self._feed(batch[0].subscription.name)
        results: list[LeaseLost | None] = await self._writer_of().do(Operation(acked=batch, feed=feed))
        return results

    async def _nack(self, received: Received, delay: float) -> None:
        feed, writer = self._feed(received.subscription.name), self._writer_of()
        due = writer.clock() + delay
        await writer.do(Operation(partial(_retry, feed, received, due), feed=feed, settled=(received,)))

    async def _release(self, batch: Sequence[Received]) -> None:
        feed = self._feed(batch[0].subscription.name)
        await self._writer_of().do(Operation(partial(_release, feed, batch), feed=feed, settled=batch))

    async def _extend(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        feed, writer = self._feed(batch[0].subscription.name), self._writer_of()
        run = partial(_renew, feed, batch, writer.clock)
        results: list[LeaseLost | None] = await writer.do(Operation(run, feed=feed))
        return results

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        writer = self._writer_of()
        if received.lease is None:
            await self._do(lambda connection: letters.keep(connection, received, reason, writer.clock()))
            return
        feed = self._feed(received.subscription.name)
        run = partial(_bury, feed, received, reason, writer.clock)
        await writer.do(Operation(run, feed=feed, settled=(received,)))

    async def _accept_push(self, request: PushRequest) -> PushReply | Sequence[Received]:
        return await asyncio.to_thread(pushes.accept, request, self._root, self.topics)

    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        found: list[DeadLetter] = await self._do(lambda connection: letters.listed(connection, subscription, limit))
        return found

    async def _replay_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        writer = self._writer_of()

        def run(connection: Any) -> int:
            writer.refresh()
            return letters.replay(connection, subscription, letter_ids, writer.clock())

        replayed: int = await self._do(run)
        return replayed

    async def _purge_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        purged: int = await self._do(lambda connection: letters.purge(connection, subscription, letter_ids))
        return purged

    async def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            for feed in self._feeds.values():
                writer.remove(feed)
            await asyncio.to_thread(_give_back, self._root, writer)

    # --- the writer ---

    async def _do(self, run: Callable[[Any], Any]) -> Any:
        return await self._writer_of().do(Operation(run))

    def _writer_of(self) -> Writer:
        # Lazily, so that constructing does no I/O; shared, so that all buses of a folder commit together.
        if self._writer is None or self._writer.forked():
            if self._closed:
                raise Closed("The message bus is closed.")
            self._writer = _borrow(self._root)
        return self._writer

    def _feed(self, name: str) -> Feed:
        feed = self._feeds.get(name)
        if feed is None:
            raise NotFound(f"This bus has not subscribed {name!r}.", resource=name)
        return feed


def _check_text(what: str, text: str | None) -> None:
    if text is not None and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValidationError(f"The {what} cannot be written as UTF-8.") from None


def _borrow(root: Path) -> Writer:
    with _guard:
        writer = _writers.get(root)
        if writer is None or not writer.is_running():
            writer = _writers[root] = Writer(Database(root))
        writer.users += 1
        return writer


def _give_back(root: Path, writer: Writer) -> None:
    with _guard:
        writer.users -= 1
        if writer.users > 0:
            return
        if _writers.get(root) is writer:
            del _writers[root]
        writer.stop()
    writer.close()  # not under the guard: it waits for the disk, and others need the guard on their event loop


def _retry(feed: Feed, received: Received, due: float, connection: Any) -> None:
    rows.retry(connection, feed, received, due)


def _release(feed: Feed, batch: Sequence[Received], connection: Any) -> None:
    rows.release(connection, feed=feed, batch=batch)


def _renew(
    feed: Feed, batch: Sequence[Received], clock: Callable[[], float], connection: Any
) -> list[LeaseLost | None]:
    return rows.renew(connection, feed, batch, clock())


def _bury(
    feed: Feed, received: Received, reason: DeadLetterReason, clock: Callable[[], float], connection: Any
) -> None:
    buried = feed.leases.get(received.lease) is received and rows.bury(
        connection, received.subscription.name, received.lease, reason.reason, reason.error_class, reason.description,
        reason.attempts, clock(), feed.token,
    )  # fmt: skip
    if not buried:
        raise rows.lease_lost(received)


@atexit.register
def _close_all() -> None:
    # A process that ends without closing leaves nothing worse than work for whoever opens next; this spares it.
    for writer in list(_writers.values()):
        if writer.is_running():
            writer.close()


def _forget_all() -> None:
    # In a forked child the thread is not there, and the connection must not be used: it is begun anew.
    for writer in _writers.values():
        writer.disown()
    _writers.clear()
    globals()["_guard"] = threading.Lock()


os.register_at_fork(after_in_child=_forget_all)
