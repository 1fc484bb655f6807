"""What Event Grid pushes to the service's endpoint: verified, and given to the subscription that it is of.

Event Grid tries again what is answered 500 or 503, all events of a request together; what is answered 400, 401, 403 or
413 it gives up at once, for good if it has no dead-letter destination
(https://learn.microsoft.com/azure/event-grid/delivery-and-retry). So nothing of an authentic request is refused that a
person may yet make sense of: it ends among the dead letters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from totoms.describe import printable
from totoms.envelope import PushReply, PushRequest, Received, Subscription
from totoms.errors import Forbidden
from totoms.logging import TotoLogger
from totoms.messages import TYPE_ATTRIBUTE
from totoms.threads import run_in_thread
from totoms_azure.configuration import AzureConfiguration
from totoms_azure.eventgrid_callers import KEYS, PushVerifier
from totoms_azure.eventgrid_events import Event, events_of, members, text_of

ORIGINS: Final = ("eventgrid.azure.net", "eventgrid.azure.us", "eventgrid.azure.cn")
"""By what name Event Grid asks whether it may push here: in the public cloud, and in those of governments."""
_VALIDATION: Final = "Microsoft.EventGrid.SubscriptionValidationEvent"
_RESOURCE: Final = "/subscriptions/"
_LONGEST_CODE: Final = 1024
_LONG: Final = 64 * 1024
"""Bytes from which on events are taken apart in a thread."""


class EventGridPushes:
    """Accepts pushes for one bus. Constructing it does no I/O.

    Args:
        settings: Who may push.
        topics: From the logical names of the service's topics to what their secrets hold: the name of a topic of Event
            Grid, or its whole resource id.
        keys_uri: Where Entra ID publishes its keys, with ``{tenant}`` for the tenant's id.

    Raises:
        ConfigurationError: The settings can never verify a token.
    """

    def __init__(self, settings: AzureConfiguration, topics: Mapping[str, str], keys_uri: str = KEYS) -> None:
        self._topics = topics
        self._verifier = PushVerifier(settings, keys_uri)

    async def accept(
        self, request: PushRequest, subscriptions: Mapping[str, Subscription]
    ) -> PushReply | Sequence[Received]:
        """Verify a request and take out what it brings, or answer a handshake.

        Events of topics that are none of the service's are left out, or refused if there are no others. What makes no
        sense is handed on to be dead-lettered; if it tells no topic, as of the subscription that the request names, or
        else of the first.

        Args:
            request: The request.
            subscriptions: The service's, by what its topics' secrets hold. One that is missing is made up.

        Raises:
            Unauthorized, Forbidden: It is not from Event Grid, or not about a topic of the service's.
            Undecidable: The keys cannot be had now.
        """
        if request.method == "OPTIONS":
            return self._agree(request)
        await self._verifier.verify(request)
        known = [
            subscriptions.get(identifier) or Subscription(f"push-{logical}", identifier, logical, delivery="push")
            for logical, identifier in self._topics.items()
        ]
        if not known:
            raise Forbidden("This service has no topics.")
        if len(request.body) < _LONG:
            events = events_of(request.body)
        else:
            events = await run_in_thread(events_of, request.body)
        named = request.headers.get("aeg-subscription-name", "")
        placed = [(event, _subscription_of(event, known, named)) for event in events]
        kind = request.headers.get("aeg-event-type")
        if kind in ("SubscriptionValidation", "SubscriptionDeletion"):
            return _handshake(placed, validating=kind == "SubscriptionValidation")
        ours = [(event, subscription) for event, subscription in placed if subscription is not None]
        if len(ours) < len(placed):
            foreign = next(event.told or "" for event, subscription in placed if subscription is None)
            TotoLogger.get_instance().log(
                "events",
                f"{len(placed) - len(ours)} events were pushed that are of no topic of this service, one of "
                f"{printable(foreign[:300])!r}.",
                "WARNING",
            )
            if not ours:
                raise Forbidden("The topic is not one of this service's.")
        attempt = _attempt(request.headers.get("aeg-delivery-count", ""))
        return [
            Received(event.body, event.message_id, attempt, subscription, event.attributes)
            for event, subscription in ours
        ]

    def _agree(self, request: PushRequest) -> PushReply:
        """Answer the question whether CloudEvents may be pushed here.

        That it carries credentials nobody promises, and it needs none: agreeing lets nobody in, as each delivery is
        verified by itself. It protects others, whom Event Grid could be made to flood
        (https://learn.microsoft.com/azure/event-grid/end-point-validation-cloud-events-schema). The address for a later
        answer, ``WebHook-Request-Callback``, is never fetched.

        Raises:
            Forbidden: Somebody else asks, or nothing that is pushed would be accepted.
        """
        origin = request.headers.get("webhook-request-origin", "").lower()
        if origin not in ORIGINS or not self._verifier.accepts:
            raise Forbidden("Nobody but Event Grid may push here.")
        headers = {"WebHook-Allowed-Origin": origin, "Allow": "POST"}
        if "webhook-request-rate" in request.headers:
            headers["WebHook-Allowed-Rate"] = "*"  # what is too much is answered 503
        return PushReply(headers=headers)


def _handshake(placed: Sequence[tuple[Event, Subscription | None]], *, validating: bool) -> PushReply:
    """Return the answer to the event that makes or ends an event subscription to a topic of the service's.

    The other way to confirm, an address in ``validationUrl``, is never fetched
    (https://learn.microsoft.com/azure/event-grid/end-point-validation-event-grid-events-schema).
    """
    event, subscription = placed[0] if len(placed) == 1 else (None, None)
    if event is None or subscription is None or event.is_cloud_event:
        raise Forbidden("The event subscription is not to a topic of this service's.")
    if not validating:
        return PushReply(body={"status": "ignored"})
    try:
        code = text_of(members(event.body).get("validationCode"))
    except ValueError:
        code = None
    if not code or len(code) > _LONGEST_CODE or event.attributes.get(TYPE_ATTRIBUTE) != _VALIDATION:
        raise Forbidden("The handshake has no code.")
    return PushReply(body={"validationResponse": code})


def _subscription_of(event: Event, known: Sequence[Subscription], named: str) -> Subscription | None:
    """Return the subscription that an event belongs to; None if to none of them.

    In its own schema the topic is Event Grid's word. The source of a CloudEvent is so only where Event Grid made it of
    its own schema, and is a resource id then; any other is the publisher's, and says nothing of where it was published.
    Then the name of the event subscription decides, which Event Grid sends in a header: it must be that of a
    subscription of the service's. See https://learn.microsoft.com/azure/event-grid/cloud-event-schema.
    """
    by_name = next((one for one in known if _same(one.name, named)), None)
    if event.told is None:
        return by_name or known[0]
    told = event.told.partition("#")[0].rstrip("/")
    if not event.is_cloud_event or told[: len(_RESOURCE)].lower() == _RESOURCE:
        return next((one for one in known if _is_topic(one.topic, told)), None)
    return by_name


def _is_topic(identifier: str, told: str) -> bool:
    """Tell whether a secret holds a resource id, or the name at the end of it. Neither minds capitals."""
    identifier = identifier.rstrip("/")
    return _same(identifier, told if "/" in identifier else told.rpartition("/")[2])


def _same(one: str, other: str) -> bool:
    # Of ASCII only: there are other letters that become these when they are made small.
    return one.isascii() and other.isascii() and bool(one) and one.lower() == other.lower()


def _attempt(count: str) -> int:
    """Return which attempt it is. Event Grid counts those before it."""
    return int(count) + 1 if count.isascii() and count.isdecimal() and len(count) < 10 else 1
