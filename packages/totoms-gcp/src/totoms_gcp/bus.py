"""The message bus of Google Cloud: Pub/Sub."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import ClassVar

from totoms.bus import DEAD_LETTERS, ORDERING, PULL, PUSH, MessageBus
from totoms.envelope import DeadLetter, DeadLetterReason, DeliveryMode, Outgoing, PushReply, PushRequest, Received
from totoms.envelope import Subscription as CoreSubscription
from totoms.environment import TotoEnvironment
from totoms.errors import BackendError, Forbidden
from totoms.verifiers import GOOGLE_KEYS
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.pubsub_calls import Calls
from totoms_gcp.pubsub_clients import Clients
from totoms_gcp.pubsub_leases import Leases
from totoms_gcp.pubsub_letters import DeadLetters
from totoms_gcp.pubsub_names import REPLAY, beside
from totoms_gcp.pubsub_publishing import Publisher
from totoms_gcp.pubsub_pushes import PushVerifier, received, subscription_of
from totoms_gcp.pubsub_receiving import Receiver, Source
from totoms_gcp.pubsub_topology import Topology


class PubSubMessageBus(MessageBus):
    """Publishes to topics and pulls from subscriptions, or is pushed to. Constructing it does no I/O.

    A topic is the operator's; the subscription is made by the service, with a dead-letter policy, unless that is
    switched off. Pub/Sub has no delays and no queues.

    Attributes:
        lease_seconds: The acknowledgement deadline of subscriptions that are made here.
        look_seconds: How often a consumer looks for dead letters that were replayed.
        letters_patience: Seconds without a new dead letter after which there are no more.
        keys_uri: Where Google publishes the keys of its tokens.
    """

    capabilities = frozenset({PULL, PUSH, ORDERING, DEAD_LETTERS})
    default_delivery: ClassVar[DeliveryMode] = "push"
    max_message_bytes: ClassVar[int] = 9_961_472
    """9.5 MiB: a request has at most 10 MB (https://cloud.google.com/pubsub/quotas#resource_limits), and a dead letter
    needs room for its reason."""
    lease_seconds: ClassVar[int] = 60
    look_seconds: ClassVar[float] = 5.0
    letters_patience: ClassVar[float] = 2.0
    keys_uri: ClassVar[str] = GOOGLE_KEYS

    def __init__(self, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> None:
        super().__init__(environment, topics)
        settings: GCPConfiguration = self.environment.hyperscaler_configuration
        self._clients = Clients()
        self._calls = calls = Calls(self._clients)
        self._leases = Leases(calls)
        self._publisher = Publisher(self._clients, settings.project_id)
        self._topology = Topology(self._clients, settings, self.lease_seconds)
        self._receiver = Receiver(calls, self.look_seconds)
        self._letters = DeadLetters(self._clients, calls, self._topology, settings.project_id, self.letters_patience)
        self._verifier = PushVerifier(settings, self.keys_uri)
        self._pushed: dict[str, CoreSubscription] = {}
        self._looked_up: dict[str, CoreSubscription] = {}
        self._dead_topics: dict[str, str] = {}

    # --- publishing ---

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        return await self._publisher.publish(batch)

    # --- receiving ---

    async def _subscribe(self, subscription: CoreSubscription, *, create: bool) -> None:
        self._check_open()
        found = await (self._topology.make if create else self._topology.check)(subscription)
        path, _ = self._topology.paths(subscription)
        replays = beside(path, REPLAY)[1]
        self._dead_topics[subscription.name] = found.dead_letter_policy.dead_letter_topic
        if subscription.delivery == "push":
            self._pushed[path] = self._pushed[replays] = subscription
        else:
            self._receiver.add(Source(subscription, path, replays, found.ack_deadline_seconds))

    async def _receive(self, subscription: CoreSubscription, max_messages: int, wait: float) -> list[Received]:
        self._check_open()
        return await self._receiver.receive(subscription, max_messages, wait)

    async def _stop_receiving(self, subscription: CoreSubscription) -> None:
        self._receiver.stop(subscription)

    # --- settling ---

    async def _ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        return await self._leases.ack(batch)

    async def _nack(self, received: Received, delay: float) -> None:
        await self._leases.nack(received, delay)

    async def _release(self, batch: Sequence[Received]) -> None:
        await self._leases.release(batch)

    async def _extend(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        return await self._leases.extend(batch)

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        if received.lease is not None:
            self._leases.check(received)
        await self._letters.keep(received, reason, self._dead_topics.get(received.subscription.name))
        if received.lease is not None:
            await self._leases.ack([received])

    # --- push ---

    async def _accept_push(self, request: PushRequest) -> PushReply | Sequence[Received]:
        path, envelope = subscription_of(request)
        subscription = self._pushed.get(path) or self._looked_up.get(path)
        known = subscription or next(iter(self._pushed.values()), None)
        await self._verifier.verify(request, known.push_url or "" if known else "")
        if subscription is None and not path and len(set(self._pushed.values())) == 1:
            subscription = known  # unwrapped, without metadata, or nonsense: then it ends among the dead letters
        if subscription is None:
            subscription = await self._look_up(path)
        return [received(request, envelope, subscription)]

    async def _look_up(self, path: str) -> CoreSubscription:
        """Return the subscription of a request that is known to come from Pub/Sub, if it is to a topic of ours."""
        if not self._pushed and path.startswith("projects/"):  # the service subscribed nothing itself
            for original in dict.fromkeys((path, path.removesuffix(REPLAY))):
                found = await self._topology.find(original)
                if found is None:
                    continue
                for name, identifier in self.topics.items():
                    subscription = CoreSubscription(original.rpartition("/")[2], identifier, name, "push")
                    if self._topology.paths(subscription)[1] == found.topic:
                        self._looked_up[path] = subscription
                        self._dead_topics[subscription.name] = found.dead_letter_policy.dead_letter_topic
                        return subscription
        raise Forbidden("The push is of a subscription that is none of this service's.")

    # --- dead letters ---

    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        return await self._letters.listed(subscription, limit)

    async def _replay_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        return await self._letters.replay(subscription, letter_ids)

    async def _purge_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        return await self._letters.purge(subscription, letter_ids)

    # --- the rest ---

    async def _close(self) -> None:
        self._receiver.close()
        await asyncio.gather(self._publisher.flush(), self._calls.flush())
        await self._clients.close()
