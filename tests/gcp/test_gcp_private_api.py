"""What is used of Google's libraries beyond their documented interface is still there, and so are the fallbacks."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import google.cloud.storage
import grpc
import pytest
from google.api_core import exceptions as api
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.pubsub_v1 import types

from support.gcp.messages import Broker
from totoms_gcp import private_api
from totoms_gcp.messages.clients import make_publisher, make_subscriber


class _WithoutChannel:
    """A transport without a public channel."""

    def __init__(self, transport: Any) -> None:
        self.pull, self.acknowledge = transport.pull, transport.acknowledge
        self.modify_ack_deadline = transport.modify_ack_deadline


@pytest.mark.parametrize("fallback", [False, True])
async def test_methods_pull_and_settle(fallback: bool) -> None:
    async with Broker() as broker:
        path = f"projects/{broker.project}/subscriptions/shop-posts"
        broker.operator.subscriptions.create_subscription(name=path, topic=broker.topic, ack_deadline_seconds=60)
        broker.operator.publish("posts-topic", b"1", {"colour": "red"})
        with make_subscriber() as client:
            transport: Any = _WithoutChannel(client.transport) if fallback else client.transport
            methods = private_api.pull_methods(transport)
            pull = types.PullRequest.pb()(subscription=path, max_messages=1)
            (one,) = (await _call(methods.pull, pull)).received_messages
            assert (one.message.data, one.message.attributes["colour"]) == (b"1", "red")
            give_back = types.ModifyAckDeadlineRequest.pb()(subscription=path, ack_ids=[one.ack_id])
            await _call(methods.modify_ack_deadline, give_back)
            (again,) = (await _call(methods.pull, pull)).received_messages
            await _call(methods.acknowledge, types.AcknowledgeRequest.pb()(subscription=path, ack_ids=[again.ack_id]))
        assert not broker.server.subscriptions[path].entries
        assert {"Pull", "ModifyAckDeadline", "Acknowledge"} <= broker.server.calls.keys()


async def _call(method: Any, request: Any) -> Any:
    return await asyncio.to_thread(method.future(request, timeout=10.0).result)


def test_channel_of_the_transport_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    with make_subscriber() as client:
        assert isinstance(client.transport.grpc_channel, grpc.Channel)


def test_storage_client_sends_by_the_session_that_it_is_given() -> None:
    session = AuthorizedSession(AnonymousCredentials())
    assert private_api.storage_client("a-project", session.credentials, session)._http is session


def test_storage_client_that_takes_no_session_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "_http" in inspect.signature(google.cloud.storage.Client).parameters

    class Without(google.cloud.storage.Client):  # type: ignore[misc]
        def __init__(self, project: str, credentials: Any) -> None:
            super().__init__(project=project, credentials=credentials)

    monkeypatch.setattr(google.cloud.storage, "Client", Without)
    session = AuthorizedSession(AnonymousCredentials())
    assert private_api.storage_client("a-project", session.credentials, session)._http is not session


class _NoToken(grpc.AuthMetadataPlugin):  # type: ignore[misc]
    """As google-auth's, whose credentials give no token."""

    def __init__(self, problem: str) -> None:
        self._problem = problem

    def __call__(self, context: Any, callback: Any) -> None:
        callback(None, OSError(self._problem))


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        ("invalid_grant: Token has been expired or revoked.", True),
        ("HTTPSConnectionPool(host='x'): Max retries", False),
    ],
)
async def test_call_without_a_token_is_recognized(problem: str, expected: bool) -> None:
    async with Broker() as broker:
        credentials = grpc.composite_channel_credentials(
            grpc.local_channel_credentials(), grpc.metadata_call_credentials(_NoToken(problem))
        )
        with grpc.secure_channel(f"127.0.0.1:{broker.server.port}", credentials) as channel:
            method = channel.unary_unary("/google.pubsub.v1.Subscriber/Pull")
            with pytest.raises(grpc.RpcError) as caught:
                await asyncio.to_thread(method, b"", timeout=10.0)
    error = api.from_grpc_error(caught.value)
    assert isinstance(error, api.ServiceUnavailable)
    assert private_api.lacks_token(error) is expected


def test_publisher_that_is_stopped_is_recognized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    publisher = make_publisher()
    publisher.stop()
    with pytest.raises(RuntimeError) as caught:
        publisher.publish("projects/p/topics/t", b"")
    publisher.transport.close()
    assert private_api.is_stopped(caught.value)
    assert not private_api.is_stopped(RuntimeError("another"))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("404 GET https://x/b/a-bucket: The specified bucket does not exist.", True),
        ("404 GET https://x/b/a-bucket/o/k: No such object: a-bucket/k", False),
        ("404 GET https://x/b/a-bucket/o/k: Reworded by Google", False),
    ],
)
def test_missing_bucket_is_recognized(message: str, expected: bool) -> None:
    assert private_api.is_missing_bucket(api.NotFound(message)) is expected


@pytest.mark.parametrize(
    ("message", "state"),
    [
        ("Secret Version [projects/1/secrets/destroyed/versions/2] is in DISABLED state.", "disabled"),
        ("Secret Version [projects/1/secrets/x/versions/2] is in DESTROYED state.", "destroyed"),
        ("Reworded by Google.", ""),
    ],
)
def test_state_of_a_secret_is_recognized(message: str, state: str) -> None:
    assert private_api.secret_state(api.FailedPrecondition(message)) == state
