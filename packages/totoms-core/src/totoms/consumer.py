"""PULL, written once: lease no more than there are free slots, keep leases alive, settle, drain.

A message is held from the moment the broker hands it over until its ack is durable; at most twice
`max_concurrency` are held: those being handled, and those whose acks are on their way.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

from totoms.bus import MessageBus
from totoms.describe import where
from totoms.envelope import DeadLetterReason, Received, RetryPolicy, Subscription
from totoms.errors import LeaseLost, TotoError
from totoms.logging import TotoLogger
from totoms.routing import Action, MessageRouter, Outcome

_WAIT: Final = 20.0
"""Seconds of one long poll: the most that SQS allows."""
_OUTAGE_PAUSES: Final = (0.1, 5.0)
"""Seconds between tries while the broker is away; "back within 5 s of its return" sets the second."""
_CANCEL_PATIENCE: Final = 1.0
_ENOUGH_BYTES: Final = 64 * 1024 * 1024
"""While so much is being handled no more is asked for, free slots or not: large messages shall not fill the memory."""


class Consumer:
    """Pulls one subscription and hands its messages to a router.

    Args:
        bus: The backend.
        subscription: What to pull; it exists already.
        router: Finds and runs handlers.
        max_concurrency: Handlers at a time.
        logger: The service's logger.
    """

    def __init__(
        self,
        bus: MessageBus,
        subscription: Subscription,
        router: MessageRouter,
        *,
        max_concurrency: int,
        logger: TotoLogger,
    ) -> None:
        self._bus = bus
        self._subscription = subscription
        self._router = router
        self._max_concurrency = max_concurrency
        self._logger = logger
        self._running: dict[Received, asyncio.Task[None]] = {}
        self._unacked: list[Received] = []
        self._acking: list[Received] = []
        self._ack_task: asyncio.Task[None] | None = None
        self._pull_task: asyncio.Task[None] | None = None
        self._lease_task: asyncio.Task[None] | None = None
        self._freed = asyncio.Event()
        self._stopping = False

    def start(self) -> None:
        """Begin to pull. Call it on the running loop."""
        self._pull_task = asyncio.create_task(self._pull(), name=f"totoms pull {self._subscription.name}")

    @property
    def in_flight(self) -> int:
        """How many handlers run now."""
        return len(self._running)

    async def stop(self, grace: float) -> None:
        """Stop pulling, let handlers finish, settle, and give back what nobody has begun.

        Args:
            grace: Seconds that running handlers may take. Then they are cancelled and their messages come again.
        """
        deadline = asyncio.get_running_loop().time() + grace
        self._stopping = True
        self._freed.set()
        if self._pull_task is not None:
            await self._quietly(self._bus._stop_receiving(self._subscription))
            await asyncio.wait({self._pull_task}, timeout=max(grace, _CANCEL_PATIENCE))
            self._pull_task.cancel()
            await asyncio.wait({self._pull_task}, timeout=_CANCEL_PATIENCE)
        if self._running:
            remaining = deadline - asyncio.get_running_loop().time()
            await asyncio.wait(set(self._running.values()), timeout=max(remaining, 0.01))
        late = dict(self._running)
        for task in late.values():
            task.cancel()
        if late:
            self._logger.log("shutdown", f"{len(late)} handlers of {self._subscription.name} were cut off.", "WARNING")
            await asyncio.wait(set(late.values()), timeout=_CANCEL_PATIENCE)
            await asyncio.gather(*(self._quietly(self._bus._nack(received, 0.0)) for received in late))
        while self._ack_task is not None and not self._ack_task.done():
            remaining = deadline - asyncio.get_running_loop().time()
            await asyncio.wait({self._ack_task}, timeout=max(remaining, _CANCEL_PATIENCE))
            if self._ack_task is not None and not self._ack_task.done():
                self._ack_task.cancel()
        if self._lease_task is not None:
            self._lease_task.cancel()

    # --- receiving ---

    async def _pull(self) -> None:
        outages = 0
        while not self._stopping:
            free = self._free_slots()
            if free <= 0:
                self._freed.clear()
                await self._freed.wait()
                continue
            try:
                batch = await self._bus._receive(self._subscription, free, _WAIT)
            except Exception as error:
                outages += 1
                if outages == 1:
                    why = str(error) if isinstance(error, TotoError) else where(error)
                    self._logger.log("events", f"Cannot receive from {self._subscription.name}: {why}", "WARNING")
                await self._pause(outages)
                continue
            if outages:
                self._logger.log("events", f"Receiving from {self._subscription.name} again.")
                outages = 0
            if self._stopping:
                if batch:
                    await self._quietly(self._bus._release(batch))
                return
            for received in batch:
                self._begin(received)

    def _free_slots(self) -> int:
        if sum(len(received.body) for received in self._running) >= _ENOUGH_BYTES:
            return 0
        held = len(self._running) + len(self._unacked) + len(self._acking)
        return min(self._max_concurrency - len(self._running), 2 * self._max_concurrency - held)

    async def _pause(self, outages: int) -> None:
        least, most = _OUTAGE_PAUSES
        pause = random.uniform(least / 2, min(most, least * 2.0 ** min(outages, 16)))
        self._freed.clear()
        try:
            async with asyncio.timeout(pause):
                while not self._stopping:
                    await self._freed.wait()
                    self._freed.clear()
        except TimeoutError:
            pass

    # --- handling ---

    def _begin(self, received: Received) -> None:
        self._running[received] = asyncio.create_task(self._process(received))
        if received.lease_seconds and self._lease_task is None:
            self._lease_task = asyncio.create_task(self._keep_leases(received.lease_seconds))

    async def _process(self, received: Received) -> None:
        try:
            outcome = await self._router.handle(received)
            if outcome.action is Action.ACK:
                self._unacked.append(received)
                if self._ack_task is None or self._ack_task.done():
                    self._ack_task = asyncio.create_task(self._flush_acks())
            else:
                await self._settle(received, outcome)
        finally:
            self._running.pop(received, None)
            self._freed.set()

    async def _settle(self, received: Received, outcome: Outcome) -> None:
        try:
            if outcome.action is Action.DEAD_LETTER:
                await self._bus._dead_letter(received, outcome.reason or DeadLetterReason("unknown"))
            else:
                await self._bus._nack(received, received.subscription.retry.backoff(received.attempt))
        except LeaseLost:
            self._log_redelivery(received)
        except Exception as error:  # not settled: its lease expires and it comes again, nothing is lost
            self._logger.log("events", f"Cannot settle message {received.message_id}: {where(error)}", "WARNING")

    async def _flush_acks(self) -> None:
        outages = 0
        while self._unacked or self._acking:
            if not self._acking:
                self._acking, self._unacked = self._unacked, []
            try:
                results = await self._bus._ack(self._acking)
            except Exception as error:
                outages += 1
                if outages >= 10:  # their leases have run out or will: they come again
                    self._logger.log("events", f"{len(self._acking)} acks given up: {where(error)}", "WARNING")
                    self._acking = []
                else:
                    await asyncio.sleep(RetryPolicy(min_backoff=0.1, max_backoff=2.0).backoff(outages))
                continue
            outages = 0
            for received, lost in zip(self._acking, results, strict=True):
                if lost is not None:
                    self._log_redelivery(received)
            self._acking = []
            self._freed.set()

    def _log_redelivery(self, received: Received) -> None:
        self._logger.log("events", f"The lease of message {received.message_id} was lost; it comes again.", "WARNING")

    # --- leases ---

    async def _keep_leases(self, lease_seconds: float) -> None:
        while True:
            await asyncio.sleep(lease_seconds / 3)
            held = [*self._running, *self._unacked, *self._acking]
            if not held:
                continue
            try:
                results = await self._bus._extend(held)
            except Exception as error:
                # Each ack is fenced by the lease itself, so a handler may go on until the broker is back.
                self._logger.log("events", f"Cannot extend leases: {where(error)}", "WARNING")
                continue
            for received, lost in zip(held, results, strict=True):
                task = self._running.get(received)
                if lost is not None and task is not None:
                    self._log_redelivery(received)
                    task.cancel()

    async def _quietly(self, operation: object) -> None:
        try:
            await operation  # type: ignore[misc]
        except Exception as error:  # while stopping: what was not given back comes again when its lease expires
            self._logger.log("shutdown", f"While stopping {self._subscription.name}: {where(error)}", "WARNING")
