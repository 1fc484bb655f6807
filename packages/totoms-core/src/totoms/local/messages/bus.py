"""The message bus of the local backend: the semantics of a broker in one SQLite file.

It is durable (``publish_message`` returns after a flushed commit), shared by all processes with the same root folder,
and has leases, attempts, backoff, delay, ordering keys and dead letters.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from totoms.environment import TotoEnvironment
from totoms.errors import BackendError, Closed, InvalidArgument, NotFound
from totoms.forks import in_forked_child
from totoms.local.messages import push as pushes
from totoms.local.messages import rows
from totoms.local.messages.database import Database
from totoms.local.messages.dead_letters import LocalDeadLetters
from totoms.local.messages.feed import Feed
from totoms.local.messages.operations import Operation
from totoms.local.messages.receiver import LocalReceiver
from totoms.local.messages.writer import Writer
from totoms.messages.bus import MessageBus
from totoms.messages.driver import BACKLOG, DEAD_LETTERS, DELAY, ORDERING, PULL, PUSH, QUEUES
from totoms.messages.outgoing import Outgoing
from totoms.messages.push_request import PushReply, PushRequest
from totoms.messages.receiver import Received
from totoms.messages.subscription import Backlog, Existing
from totoms.messages.subscription import Subscription as CoreSubscription
from totoms.threads import run_in_thread, start_thread

_writers: Final[dict[Path, Writer]] = {}
_guard: Final = threading.Lock()


class LocalMessageBus(MessageBus):
    """Messages in ``<root>/bus.sqlite3``. Constructing it does no I/O.

    A topic exists when the configuration names it; a queue, from its first use. A message published to a topic
    without subscriptions is dropped, as on every broker.

    Attributes:
        lease_seconds: How long a lease lasts. The core renews it while the message is handled.
    """

    capabilities = frozenset({PULL, PUSH, ORDERING, DELAY, QUEUES, DEAD_LETTERS, BACKLOG})
    lease_seconds: ClassVar[float] = 30.0
    lease_range = (0.1, math.inf)

    def __init__(self, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> None:
        super().__init__(environment, topics)
        self._root = Path(self.environment.hyperscaler_configuration.root)
        self._writer: Writer | None = None
        self._feeds: list[Feed] = []
        self._lease: float | None = None

    def _use_lease(self, seconds: float) -> None:
        self._lease = seconds

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        for outgoing in batch:
            _check_text("ordering key", outgoing.ordering_key)
            _check_text("name of a queue", outgoing.queue)
        await self._get_writer().do(Operation(published=batch))
        return [None] * len(batch)

    async def _subscribe(self, subscription: CoreSubscription, *, create: bool) -> LocalReceiver:
        row = await self._do(partial(self._find_or_make, subscription, create))
        feed = Feed(row, subscription, self._lease or self.lease_seconds)
        self._feeds.append(feed)
        self._get_writer().add(feed)
        return LocalReceiver(feed, self._get_writer)

    async def _subscribe_push(self, subscription: CoreSubscription, *, create: bool) -> None:
        await self._do(partial(self._find_or_make, subscription, create))

    def _find_or_make(self, subscription: CoreSubscription, create: bool, connection: Any) -> int:
        topic = subscription.topic or None  # a queue has none
        if not create:
            found = rows.find_subscription(connection, subscription.name)
            if found is None or topic not in (found[1], None):
                what = f"queue {subscription.name!r}"
                if topic:
                    what = f"subscription {subscription.name!r} to the topic {topic!r}"
                raise NotFound(f"There is no {what}, and create_subscriptions is off.", resource=subscription.name)
            return found[0]
        self._get_writer().refresh()
        return rows.add_subscription(connection, subscription.name, topic, ordered=subscription.ordered)

    async def _existing(self, subscription: CoreSubscription) -> Existing | None:
        found = await self._do(lambda connection: rows.find_subscription(connection, subscription.name))
        return Existing(pull=found is not None)

    async def _backlog(self, subscription: CoreSubscription) -> Backlog | None:
        clock = self._get_writer().clock

        def count(connection: sqlite3.Connection) -> Backlog:
            found = rows.find_subscription(connection, subscription.name)
            if found is None:
                raise NotFound(f"There is no subscription {subscription.name!r}.", resource=subscription.name)
            return rows.backlog(connection, found[0], clock())

        backlog: Backlog = await self._do(count)
        return backlog

    async def _accept_push(self, request: PushRequest) -> PushReply | Sequence[Received]:
        subscription = await run_in_thread(pushes.verify, request, self._root, self.topics)
        return [pushes.received(request, await request.read(verified=True), subscription)]

    def _dead_letters(self, subscription: str) -> LocalDeadLetters:
        return LocalDeadLetters(subscription, self._get_writer)

    async def _list_subscriptions(self) -> Sequence[str]:
        names: list[str] = await self._do(rows.subscription_names)
        return names

    async def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            for feed in self._feeds:
                writer.remove(feed)
            await asyncio.wrap_future(start_thread(partial(_release_writer, self._root, writer), "totoms bus closing"))

    # --- the writer ---

    async def _do(self, run: Callable[[Any], Any]) -> Any:
        return await self._get_writer().do(Operation(run))

    def _get_writer(self) -> Writer:
        # Lazy, so that constructing does no I/O; shared, so that all buses of a folder commit together.
        if self._writer is None or self._writer.forked():
            if self._closed:
                raise Closed("The message bus is closed.")
            self._writer = _acquire_writer(self._root)
        return self._writer


def _check_text(what: str, text: str | None) -> None:
    if text is not None and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidArgument(f"The {what} cannot be encoded as UTF-8.") from None


def _acquire_writer(root: Path) -> Writer:
    with _guard:
        writer = _writers.get(root)
        if writer is None or not writer.is_running():
            writer = _writers[root] = Writer(Database(root))
        writer.users += 1
        return writer


def _release_writer(root: Path, writer: Writer) -> None:
    with _guard:
        writer.users -= 1
        if writer.users > 0:
            return
        if _writers.get(root) is writer:
            del _writers[root]
        writer.stop()
    writer.close()  # without the guard: this waits for the disk, and event loops take the guard


@atexit.register
def _close_all() -> None:
    # Not needed for safety: the next process to open the database would have to check all of it.
    for writer in list(_writers.values()):
        if writer.is_running():
            writer.close()


def _forget_all() -> None:
    # A forked child has no writer thread and must not use the parent's connection.
    for writer in _writers.values():
        writer.close_in_child()
    _writers.clear()
    globals()["_guard"] = threading.Lock()


in_forked_child(_forget_all)
