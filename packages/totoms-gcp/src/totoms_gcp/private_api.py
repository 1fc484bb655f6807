"""The undocumented parts of Google's libraries that totoms uses, each with its reason and a fallback.

A test in ``tests/gcp/test_gcp_private_api.py`` fails when one of them is gone or has changed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from google.cloud.storage import Client

_SERVICE: Final = "/google.pubsub.v1.Subscriber/"
_NO_TOKEN: Final = "Getting metadata from plugin failed"
_STOPPED: Final = "Cannot publish on a stopped publisher."
_NO_BUCKET: Final = "The specified bucket does not exist."
_SIGNING_DENIED: Final = re.compile(r"'code': 40[13]\b")
_SECRET_PATH: Final = re.compile(r"projects/[^\s\]]*")


class PullMethods(NamedTuple):
    """gRPC's callables for the methods that are called for each batch. They take protobuf messages."""

    pull: Any
    acknowledge: Any
    modify_ack_deadline: Any


def pull_methods(transport: Any) -> PullMethods:
    """Return the methods that pull and settle, made by hand from their names in Pub/Sub's protocol.

    Reason: the transport's own wrap each message, which takes longer than to handle it; and while Google's logger is at
    the level DEBUG their futures block the calling thread, which is the event loop.
    Fallback: the transport's own, which take the same messages.
    """
    channel = getattr(transport, "grpc_channel", None)
    if channel is None:
        return PullMethods(transport.pull, transport.acknowledge, transport.modify_ack_deadline)
    from google.protobuf.empty_pb2 import Empty
    from google.pubsub_v1 import types

    def method(name: str, request: Any, response: Any) -> Any:
        return channel.unary_unary(
            f"{_SERVICE}{name}",
            request_serializer=request.pb().SerializeToString,
            response_deserializer=response.FromString,
        )

    return PullMethods(
        method("Pull", types.PullRequest, types.PullResponse.pb()),
        method("Acknowledge", types.AcknowledgeRequest, Empty),
        method("ModifyAckDeadline", types.ModifyAckDeadlineRequest, Empty),
    )


def storage_client(project: str, credentials: Any, session: Any) -> Client:
    """Return a client of Cloud Storage that sends its requests by `session`.

    Reason: its argument for that is ``_http``; otherwise it has its own session with ten connections, and the session
    that streams files would have others. Fallback: its own session.
    """
    from google.cloud.storage import Client

    try:
        return Client(project=project, credentials=credentials, _http=session)
    except TypeError:
        return Client(project=project, credentials=credentials)


def lacks_token(error: Exception) -> bool:
    """Return whether gRPC could not call because it has no access token.

    Reason: gRPC reports it as UNAVAILABLE, like a broken connection, and gives the cause in words only. A token server
    that is out of reach is described in the words of `requests`. Fallback: it counts as a broken connection.
    """
    message = str(error)
    return _NO_TOKEN in message and "ConnectionPool" not in message


def is_stopped(error: BaseException | None) -> bool:
    """Return whether the publisher refused a message because it is stopped.

    Reason: it raises a bare RuntimeError. Fallback: it counts as a failure that may pass.
    """
    return isinstance(error, RuntimeError) and str(error) == _STOPPED


def is_missing_bucket(error: BaseException | None) -> bool:
    """Return whether a 404 of Cloud Storage is about the bucket.

    Reason: nothing but its text distinguishes it from that of a missing object. Fallback: it is the object's.
    """
    return str(error).endswith(_NO_BUCKET)


def is_signing_denied(error: Exception) -> bool:
    """Return whether Google refused to sign for an impersonated account, with 401 or 403.

    Reason: google-auth turns each answer into a TransportError that quotes it. Fallback: it is Unavailable.
    """
    return _SIGNING_DENIED.search(str(error)) is not None


def secret_state(error: Any) -> str:
    """Return "disabled" or "destroyed", whichever a secret's version is, or "" if Secret Manager does not say.

    Reason: both are FAILED_PRECONDITION, and only the text distinguishes them. Fallback: the error names both.
    """
    message = _SECRET_PATH.sub("", str(error.message)).lower()  # the secret's name may contain the word
    return next((state for state in ("destroyed", "disabled") if state in message), "")
