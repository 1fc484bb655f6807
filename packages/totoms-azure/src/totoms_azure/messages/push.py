"""Accepts what Event Grid pushes to the service's endpoint: verifies it, and finds the subscription of each event.

Event Grid sends a request again that is answered 500 or 503, with all its events; what is answered 400, 401, 403 or 413
it drops at once, unless it has a dead-letter destination
(https://learn.microsoft.com/azure/event-grid/delivery-and-retry). So a malformed part of an authentic request is not
refused: it becomes a dead letter, which a person can inspect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from totoms.errors import Forbidden
from totoms.plugin import (
    TYPE_ATTRIBUTE,
    PushReply,
    PushRequest,
    Received,
    Subscription,
    TotoLogger,
    printable,
    run_in_thread,
)
from totoms_azure.configuration import AzureConfiguration
from totoms_azure.messages.event_grid import MOST_EVENTS, Event, TooManyEvents, parse_events, parse_members, parse_text
from totoms_azure.messages.push_verifier import PushVerifier

ORIGINS: Final = ("eventgrid.azure.net", "eventgrid.azure.us", "eventgrid.azure.cn")
"""The names under which Event Grid asks whether it may push here, one for each cloud."""
_VALIDATION: Final = "Microsoft.EventGrid.SubscriptionValidationEvent"
_RESOURCE: Final = "/subscriptions/"
_LONGEST_CODE: Final = 1024
_LARGE: Final = 64 * 1024
"""Bytes from which on events are parsed in a thread."""


class PushReceiver:
    """Accepts pushes for one bus. Constructing it does no I/O.

    Args:
        settings: How pushes are verified.
        topics: From the logical names of the service's topics to their identifiers: the name of a topic of Event Grid,
            or its whole resource id.
        keys_uri: Where Entra ID publishes its keys, with ``{tenant}`` for the tenant's id; empty for the cloud's own.

    Raises:
        ConfigurationError: The settings could never verify a token.
    """

    def __init__(self, settings: AzureConfiguration, topics: Mapping[str, str], keys_uri: str = "") -> None:
        self._topics = topics
        self._verifier = PushVerifier(settings, keys_uri)

    @property
    def accepts(self) -> bool:
        """Whether any push could be verified."""
        return self._verifier.accepts

    async def accept(
        self, request: PushRequest, subscriptions: Mapping[str, Subscription]
    ) -> PushReply | Sequence[Received]:
        """Verify a request and return its messages, or answer a handshake.

        Events of other topics than the service's are left out; if there are no others, the request is refused. A
        malformed event is returned to be dead-lettered; if it has no topic, for the subscription that the
        request names, or else for the first.

        Args:
            request: The request.
            subscriptions: The service's, by the identifiers of their topics. A missing one is made up.

        Raises:
            Unauthorized, Forbidden: It does not come from Event Grid, or not from a topic of the service.
            Undecidable: The keys cannot be fetched.
        """
        if request.method == "OPTIONS":
            return self._allow_origin(request)
        await self._verifier.verify(request)
        known = [
            subscriptions.get(identifier) or Subscription(f"push-{logical}", identifier, logical, delivery="push")
            for logical, identifier in self._topics.items()
        ]
        if not known:
            raise Forbidden("This service has no topics.")
        body = await request.read(verified=True)
        try:
            events = parse_events(body) if len(body) < _LARGE else await run_in_thread(parse_events, body)
        except TooManyEvents:  # Event Grid never sends so many, and as one dead letter they would be too large
            TotoLogger.get_instance().log("events", f"Refused a push with more than {MOST_EVENTS} events.", "ERROR")
            return PushReply(413, {"code": 413, "message": f"A push has at most {MOST_EVENTS} events."})
        name = request.headers.get("aeg-subscription-name", "")
        placed = [(event, _subscription_of(event, known, name)) for event in events]
        kind = request.headers.get("aeg-event-type")
        if kind in ("SubscriptionValidation", "SubscriptionDeletion"):
            return _handshake(placed, validating=kind == "SubscriptionValidation")
        accepted = [(event, subscription) for event, subscription in placed if subscription is not None]
        if len(accepted) < len(placed):
            foreign = next(event.origin or "" for event, subscription in placed if subscription is None)
            TotoLogger.get_instance().log(
                "events",
                f"Dropped {len(placed) - len(accepted)} pushed events of topics that are not this service's, one of "
                f"{printable(foreign[:300])!r}.",
                "WARNING",
            )
            if not accepted:
                raise Forbidden("The topic is not one of this service's.")
        attempt = _attempt(request.headers.get("aeg-delivery-count", ""))
        return [
            Received(event.body, event.message_id, attempt, subscription, event.attributes)
            for event, subscription in accepted
        ]

    def _allow_origin(self, request: PushRequest) -> PushReply:
        """Answer the question whether CloudEvents may be pushed here.

        The question may come without credentials, and needs none: each delivery is verified by itself. It protects
        third parties that Event Grid could be made to flood
        (https://learn.microsoft.com/azure/event-grid/end-point-validation-cloud-events-schema). The address for a later
        answer, ``WebHook-Request-Callback``, is never fetched.

        Raises:
            Forbidden: The origin is not Event Grid, or no push could be verified.
        """
        origin = request.headers.get("webhook-request-origin", "").lower()
        if origin not in ORIGINS or not self._verifier.accepts:
            raise Forbidden("Only Event Grid may push here.")
        headers = {"WebHook-Allowed-Origin": origin, "Allow": "POST"}
        if "webhook-request-rate" in request.headers:
            headers["WebHook-Allowed-Rate"] = "*"  # what is too much is answered 503
        return PushReply(headers=headers)


def _handshake(placed: Sequence[tuple[Event, Subscription | None]], *, validating: bool) -> PushReply:
    """Return the answer to the event that starts or ends an event subscription to one of the service's topics.

    The other way to confirm, the address in ``validationUrl``, is never fetched
    (https://learn.microsoft.com/azure/event-grid/end-point-validation-event-grid-events-schema).
    """
    event, subscription = placed[0] if len(placed) == 1 else (None, None)
    if event is None or subscription is None or event.is_cloud_event:
        raise Forbidden("The event subscription is not to a topic of this service.")
    topic = printable(subscription.topic)
    if not validating:
        TotoLogger.get_instance().log("events", f"The event subscription to {topic} was deleted.", "WARNING")
        return PushReply(body={"status": "ignored"})
    try:
        code = parse_text(parse_members(event.body).get("validationCode"))
    except ValueError:
        code = None
    if not code or len(code) > _LONGEST_CODE or event.attributes.get(TYPE_ATTRIBUTE) != _VALIDATION:
        raise Forbidden("The handshake has no code.")
    TotoLogger.get_instance().log("events", f"Confirmed the event subscription to {topic} to Event Grid.")
    return PushReply(body={"validationResponse": code}, subscribed=subscription.logical_name)


def _subscription_of(event: Event, known: Sequence[Subscription], name: str) -> Subscription | None:
    """Return the subscription that an event belongs to; None if it belongs to none.

    In Event Grid's own schema, Event Grid sets the topic. It sets the source of a CloudEvent only where it converted
    one from its own schema; it is a resource id then. Any other source is set by the publisher, and does not say where
    the event was published. Then the name of the event subscription decides, which Event Grid sends in a header: it
    must be that of one of the service's subscriptions. See
    https://learn.microsoft.com/azure/event-grid/cloud-event-schema.
    """
    by_name = next((one for one in known if _same(one.name, name)), None)
    if event.origin is None:
        return by_name or known[0]
    origin = event.origin.partition("#")[0].rstrip("/")
    if not event.is_cloud_event or origin[: len(_RESOURCE)].lower() == _RESOURCE:
        return next((one for one in known if _is_topic(one.topic, origin)), None)
    return by_name


def _is_topic(identifier: str, origin: str) -> bool:
    """Return whether an identifier is a resource id, or the name at the end of it. Both are case-insensitive."""
    identifier = identifier.rstrip("/")
    return _same(identifier, origin if "/" in identifier else origin.rpartition("/")[2])


def _same(one: str, other: str) -> bool:
    # ASCII only: some other letters have an ASCII letter as their lower case.
    return one.isascii() and other.isascii() and bool(one) and one.lower() == other.lower()


def _attempt(count: str) -> int:
    """Return the number of the attempt. Event Grid counts the attempts before it."""
    return int(count) + 1 if count.isascii() and count.isdecimal() and len(count) < 10 else 1
