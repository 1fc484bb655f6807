"""The consumer of a pull subscription: receive, handle, renew leases, settle, and drain at shutdown.

It holds at most twice `max_concurrency` messages: those being handled, and those whose acks are in flight.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from totoms.errors import LeaseLost, NotFound
from totoms.logging.describe import describe_error
from totoms.logging.logger import TotoLogger
from totoms.messages.dead_letter_log import dead_letter
from totoms.messages.outages import Outage
from totoms.messages.outcome import Action, Outcome
from totoms.messages.receiver import Received, Receiver
from totoms.messages.router import MessageRouter
from totoms.messages.subscription import RetryPolicy
from totoms.telemetry import state as telemetry

_WAIT: Final = 20.0
"""Seconds that one call of `Receiver.receive` waits for messages."""
_RECEIVE_RETRY: Final = RetryPolicy(min_backoff=0.2, max_backoff=5.0)
"""The pauses between attempts to receive while the broker is unavailable."""
_ACK_RETRY: Final = RetryPolicy(min_backoff=0.1, max_backoff=2.0)
"""The pauses between attempts to ack. Shorter, because a lease may expire meanwhile."""
_CANCEL_PATIENCE: Final = 1.0
_MAX_BYTES: Final = 64 * 1024 * 1024
"""While messages of this size in total are being handled, receive no more, so that they do not fill the memory."""


class Consumer:
    """Pulls one subscription and hands its messages to a router.

    Args:
        receiver: Receives the messages of one subscription.
        router: Finds and runs handlers.
        max_concurrency: How many handlers may run at the same time.
        logger: The service's logger.
        resubscribe: Called when the subscription has vanished; returns a new receiver, or raises a BackendError.

    Attributes:
        subscription: The subscription.
        receiving: Whether messages can be received, and since when not.
    """

    def __init__(
        self,
        receiver: Receiver,
        router: MessageRouter,
        *,
        max_concurrency: int,
        logger: TotoLogger,
        resubscribe: Callable[[NotFound], Awaitable[Receiver]] | None = None,
    ) -> None:
        self._receiver = receiver
        self.subscription = receiver.subscription
        self._router = router
        self._max_concurrency = max_concurrency
        self._logger = logger
        self._resubscribe = resubscribe
        self.receiving = Outage(f"receive from {self.subscription.name}", logger)
        self._extending = Outage(f"extend leases of {self.subscription.name}", logger)
        self._running: dict[Received, asyncio.Task[None]] = {}
        self._gone: dict[Received, Receiver] = {}  # messages of a subscription that vanished while they were handled
        self._unacked: list[Received] = []
        self._acking: list[Received] = []
        self._ack_task: asyncio.Task[None] | None = None
        self._pull_task: asyncio.Task[None] | None = None
        self._lease_task: asyncio.Task[None] | None = None
        self._freed = asyncio.Event()
        self._stopping = False

    def start(self) -> None:
        """Start to pull, on the running event loop."""
        self._pull_task = asyncio.create_task(self._pull(), name=f"totoms pull {self.subscription.name}")

    @property
    def in_flight(self) -> int:
        """How many handlers are running."""
        return len(self._running)

    async def stop(self, grace: float) -> None:
        """Stop pulling, let handlers finish, settle, and release messages that no handler has started.

        Args:
            grace: Seconds after which running handlers are cancelled and their messages nacked.
        """
        deadline = asyncio.get_running_loop().time() + grace
        self._stopping = True
        self._freed.set()
        if self._pull_task is not None:
            await self._log_failure(self._receiver.stop())
            await asyncio.wait({self._pull_task}, timeout=max(grace, _CANCEL_PATIENCE))
            self._pull_task.cancel()
            await asyncio.wait({self._pull_task}, timeout=_CANCEL_PATIENCE)
        if self._running:
            remaining = deadline - asyncio.get_running_loop().time()
            await asyncio.wait(set(self._running.values()), timeout=max(remaining, 0.01))
        late, gone = dict(self._running), dict(self._gone)
        for task in late.values():
            task.cancel()
        if late:
            self._logger.log("shutdown", f"Cancelled {len(late)} handlers of {self.subscription.name}.", "WARNING")
            await asyncio.wait(set(late.values()), timeout=_CANCEL_PATIENCE)
            await asyncio.gather(*(self._log_failure(gone.get(one, self._receiver).nack(one, 0.0)) for one in late))
        while self._ack_task is not None and not self._ack_task.done():
            remaining = deadline - asyncio.get_running_loop().time()
            await asyncio.wait({self._ack_task}, timeout=max(remaining, _CANCEL_PATIENCE))
            if self._ack_task is not None and not self._ack_task.done():
                self._ack_task.cancel()
        if self._lease_task is not None:
            self._lease_task.cancel()

    # --- receiving ---

    async def _pull(self) -> None:
        errors = 0
        while not self._stopping:
            free = self._free_slots()
            if free <= 0:
                self._freed.clear()
                await self._freed.wait()
                continue
            begun = time.time_ns()
            try:
                batch = await self._receiver.receive(free, _WAIT)
            except Exception as error:
                errors += 1
                failure = await self._renew(error) if isinstance(error, NotFound) else error
                if failure is not None:
                    self.receiving.failed(failure)
                await self._pause(errors)
                continue
            errors = 0
            if batch and telemetry.active is not None:
                telemetry.active.received(self._router.system, batch, begun)
            if self._stopping:
                if batch:
                    await self._log_failure(self._receiver.release(batch))
                return
            self.receiving.ended()
            for received in batch:
                self._begin(received)

    def _free_slots(self) -> int:
        if sum(len(received.body) for received in self._running) >= _MAX_BYTES:
            return 0
        held = len(self._running) + len(self._unacked) + len(self._acking)
        return min(self._max_concurrency - len(self._running), 2 * self._max_concurrency - held)

    async def _renew(self, error: NotFound) -> Exception | None:
        """Subscribe again, because the subscription has vanished; return the error if that fails."""
        if self._resubscribe is None:
            return error
        vanished = self._receiver
        try:
            self._receiver = await self._resubscribe(error)
        except Exception as failure:
            return failure
        # What was received before cannot be acked any more. Its handlers continue, because no other consumer gets it.
        self._gone.update(dict.fromkeys(self._running, vanished))
        self._unacked, self._acking = [], []
        self._freed.set()
        await self._log_failure(vanished.stop())
        return None

    async def _pause(self, errors: int) -> None:
        self._freed.clear()
        try:
            async with asyncio.timeout(_RECEIVE_RETRY.backoff(errors)):
                while not self._stopping:
                    await self._freed.wait()
                    self._freed.clear()
        except TimeoutError:
            pass

    # --- handling ---

    def _begin(self, received: Received) -> None:
        self._running[received] = asyncio.create_task(self._process(received))
        if self._receiver.lease_seconds and self._lease_task is None:
            self._lease_task = asyncio.create_task(self._keep_leases())

    async def _process(self, received: Received) -> None:
        try:
            outcome = await self._router.handle(received)
            gone = self._gone.get(received)
            if outcome.action is not Action.ACK:
                await self._settle(gone or self._receiver, received, outcome)
            elif gone is None:
                self._unacked.append(received)
                if self._ack_task is None or self._ack_task.done():
                    self._ack_task = asyncio.create_task(self._flush_acks())
        finally:
            self._running.pop(received, None)
            self._gone.pop(received, None)
            self._freed.set()

    async def _settle(self, receiver: Receiver, received: Received, outcome: Outcome) -> None:
        try:
            if outcome.action is Action.DEAD_LETTER:
                keep, system = receiver.dead_letter, self._router.system
                failure = await dead_letter(keep, received, outcome, self._logger, system)
                if isinstance(failure, LeaseLost):
                    self._count_lost_lease()
            else:
                delay = outcome.delay
                if delay is None:
                    delay = received.subscription.retry.backoff(received.attempt)
                with telemetry.settling(self._router.system, "nack", (received,)):
                    await receiver.nack(received, delay)
        except LeaseLost:
            self._log_redelivery(received)
        except Exception as error:  # it is delivered again when its lease expires
            self._warn(f"Cannot settle message {received.message_id} of {self.subscription.name}", error)

    async def _flush_acks(self) -> None:
        outages, since = 0, 0.0
        while self._unacked or self._acking:
            if not self._acking:
                self._acking, self._unacked = self._unacked, []
            receiver, acking = self._receiver, self._acking
            try:
                with telemetry.settling(self._router.system, "ack", acking):
                    results = await receiver.ack(acking)
            except Exception as error:
                if acking is not self._acking:  # the subscription vanished
                    continue
                now = asyncio.get_running_loop().time()
                since = since if outages else now
                outages += 1
                # Retry for as long as a lease lasts, so that a short outage does not cause redeliveries.
                if outages >= 10 and now - since >= self._receiver.lease_seconds:
                    self._warn(f"Cannot ack {len(self._acking)} messages of {self.subscription.name}", error)
                    if telemetry.active is not None:
                        topic = self.subscription.logical_name
                        telemetry.active.instruments.ack_given_up(topic, self.subscription.name, len(self._acking))
                    self._acking = []
                    self._freed.set()
                else:
                    await asyncio.sleep(_ACK_RETRY.backoff(outages))
                continue
            outages = 0
            if acking is not self._acking:
                continue
            for received, lost in zip(acking, results, strict=True):
                if lost is not None:
                    self._log_redelivery(received)
            self._acking = []
            self._freed.set()

    def _log_redelivery(self, received: Received) -> None:
        self._count_lost_lease()
        text = f"The lease of message {received.message_id} was lost; it is delivered again."
        self._logger.log("events", text, "WARNING")

    def _count_lost_lease(self) -> None:
        if telemetry.active is not None:
            telemetry.active.instruments.lease_lost(self.subscription.logical_name, self.subscription.name)

    def _warn(self, what: str, error: Exception, cid: str = "events") -> None:
        self._logger.log(cid, f"{what}: {describe_error(error)}", "WARNING")

    # --- leases ---

    async def _keep_leases(self) -> None:
        seconds = self._receiver.lease_seconds
        while True:
            await asyncio.sleep(seconds / 3)
            seconds = self._receiver.lease_seconds or seconds  # 0 until a new receiver has fetched something
            held = [*(one for one in self._running if one not in self._gone), *self._unacked, *self._acking]
            if not held:
                continue
            receiver = self._receiver
            try:
                results = await receiver.extend(held)
            except Exception as error:
                # Handlers continue: the ack of a message whose lease expired is rejected anyway.
                self._extending.failed(error)
                continue
            self._extending.ended()
            for received, lost in zip(held, results, strict=True):
                task = self._running.get(received)
                if lost is not None and task is not None and receiver is self._receiver:
                    self._log_redelivery(received)
                    task.cancel()

    async def _log_failure(self, operation: Awaitable[None]) -> None:
        try:
            await operation
        except Exception as error:  # messages not given back are delivered again when their leases expire
            self._warn(f"While stopping {self.subscription.name}", error, "shutdown")
