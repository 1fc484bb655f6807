"""Errors of AWS and of the network become errors of totoms that name the resource, with the original as their cause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from standins.aws.errors import FaultyAWS
from standins.ports import free_port
from support.aws import kit as aws_kit
from totoms import CloudStorage, MessageBus, MessageDestination, SecretsManager, TotoMessage
from totoms.errors import AccessDenied, BackendError, NotFound, PreconditionFailed, Unavailable
from totoms_aws import clients
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.errors import translate
from totoms_aws.storage import upload

SETTINGS = AWSConfiguration(region=aws_kit.REGION, environment="test")
BUCKET = "a-bucket"
TOPIC = f"arn:aws:sns:{aws_kit.REGION}:000000000000:a-topic"


def read_secret() -> None:
    SecretsManager(aws_kit.environment(SETTINGS)).get_secret("a-name", version=f"AWS{time.monotonic_ns()}"[:31])


def files() -> CloudStorage:
    return CloudStorage(BUCKET, environment=aws_kit.environment(SETTINGS))


def publish() -> None:
    async def publishing() -> None:
        bus = MessageBus(aws_kit.environment(SETTINGS), {"posts": TOPIC})
        try:
            await bus.publish_message(MessageDestination(topic="posts"), TotoMessage(type="posted"))
        finally:
            await bus.close()

    asyncio.run(publishing())


def look_for_dead_letters() -> None:
    async def looking() -> None:
        bus = MessageBus(aws_kit.environment(SETTINGS), {"posts": TOPIC})
        try:
            await bus.list_dead_letters("a-queue")
        finally:
            await bus.close()

    asyncio.run(looking())


USES: dict[str, tuple[Callable[[], object], str]] = {
    "secret": (read_secret, "a-name"),
    "stat": (lambda: files().stat("a-key"), "a-key"),
    "download": (lambda: files().get_file_bytes("a-key"), "a-key"),
    "upload": (lambda: files().upload_bytes(b"x", "a-key"), "a-key"),
    "copy": (lambda: files().copy_file("a-key", "copy"), "a-key"),
    "delete": (lambda: files().delete_file("a-key"), "a-key"),
    "list": (lambda: files().list_files(), BUCKET),
    "publish": (publish, TOPIC),
    "dead letters": (look_for_dead_letters, "a-queue"),
}
"""Operations, and the resource that each is about."""


@pytest.fixture(autouse=True)
def _fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    aws_kit.once(monkeypatch)


def told(use: str, error: type[BackendError], cause: type[Exception] = ClientError) -> BackendError:
    call, resource = USES[use]
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert caught.value.resource == resource
    assert resource in str(caught.value)
    assert isinstance(caught.value.__cause__, cause)
    return caught.value


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AccessDenied", AccessDenied),
        (403, "InvalidAccessKeyId", AccessDenied),
        (403, "SignatureDoesNotMatch", AccessDenied),
        (403, "RequestTimeTooSkewed", AccessDenied),
        (400, "ExpiredToken", AccessDenied),
        (503, "SlowDown", Unavailable),
        (500, "InternalError", Unavailable),
        (503, "ServiceUnavailable", Unavailable),
        (502, "", Unavailable),
        (429, "TooManyRequests", Unavailable),
    ],
)
def test_answer_of_any_service(
    monkeypatch: pytest.MonkeyPatch, use: str, status: int, code: str, error: type[BackendError]
) -> None:
    with FaultyAWS() as faults:
        faults.rule(status=status, code=code)
        aws_kit.use(monkeypatch, faults.address)
        raised = told(use, error)
    assert "as the test says" not in str(raised)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "ResourceNotFoundException", NotFound),
        (400, "InvalidRequestException", NotFound),
        (400, "AccessDeniedException", AccessDenied),
        (400, "ExpiredTokenException", AccessDenied),
        (400, "UnrecognizedClientException", AccessDenied),
        (403, "InvalidSignatureException", AccessDenied),
        (400, "ThrottlingException", Unavailable),
        (500, "InternalServiceError", Unavailable),
        (400, "DecryptionFailure", BackendError),
        (400, "InvalidParameterException", BackendError),
    ],
)
def test_answer_of_secrets_manager(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, error: type[BackendError]
) -> None:
    with FaultyAWS() as faults:
        faults.rule(status=status, code=code)
        aws_kit.use(monkeypatch, faults.address)
        told("secret", error)


@pytest.mark.parametrize("use", ["upload", "list", "delete"])
def test_bucket_of_another_region_or_kind(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    with FaultyAWS() as faults:
        faults.rule(status=400, code="IllegalLocationConstraintException")
        aws_kit.use(monkeypatch, faults.address)
        assert "IllegalLocationConstraintException" in str(told(use, BackendError))


def test_conditional_write_that_s3_does_not_decide_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_sleep", lambda _seconds: None)
    with FaultyAWS() as faults:
        writing = faults.rule(status=409, code="ConditionalRequestConflict")
        faults.rule(matches=lambda request: request.method == "HEAD", status=404)
        aws_kit.use(monkeypatch, faults.address)
        with pytest.raises(Unavailable, match="ConditionalRequestConflict"):
            files().upload_bytes(b"x", "a-key", if_absent=True)
    assert len(writing.seen) == 4


@pytest.mark.parametrize("size", [1, 6 * 1024 * 1024])  # whole, and by parts
@pytest.mark.parametrize("there", [False, True])
def test_conditional_write_after_a_conflict_is_decided(monkeypatch: pytest.MonkeyPatch, size: int, there: bool) -> None:
    monkeypatch.setattr(upload, "_sleep", lambda _seconds: None)
    with FaultyAWS(aws_kit.server()) as faults, aws_kit.settings(monkeypatch, faults.address) as configuration:
        bucket = aws_kit.make_bucket(configuration)
        storage = CloudStorage(bucket, environment=aws_kit.environment(configuration))
        if there:
            storage.upload_bytes(b"old", "a-key")
        conflicting = faults.rule(
            matches=lambda request: request.headers.get("if-none-match") == "*",
            times=2,
            status=409,
            code="ConditionalRequestConflict",
        )
        if there:
            with pytest.raises(PreconditionFailed):
                storage.upload_bytes(bytes(size), "a-key", if_absent=True)
        else:
            storage.upload_bytes(bytes(size), "a-key", if_absent=True)
        assert len(conflicting.seen) == 2
        assert storage.stat("a-key").size == (3 if there else size)


@pytest.mark.parametrize("use", USES)
def test_endpoint_away(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    aws_kit.use(monkeypatch, f"http://127.0.0.1:{free_port()}")

    assert "EndpointConnectionError" in str(told(use, Unavailable, BotoCoreError))


@pytest.mark.parametrize("use", USES)
def test_endpoint_that_hangs_up(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    with FaultyAWS() as faults:
        faults.away = True
        aws_kit.use(monkeypatch, faults.address)
        told(use, Unavailable, BotoCoreError)


@pytest.mark.parametrize("use", USES)
def test_endpoint_that_says_nothing(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    import threading

    monkeypatch.setattr(clients, "_READ_SECONDS", dict.fromkeys(clients._READ_SECONDS, 0.2))
    with FaultyAWS() as faults:
        faults.rule(hold=threading.Event(), status=500)
        aws_kit.use(monkeypatch, faults.address)
        assert "ReadTimeoutError" in str(told(use, Unavailable, BotoCoreError))


@pytest.mark.parametrize("use", USES)
def test_no_credentials(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    aws_kit.use(monkeypatch, "http://127.0.0.1:1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    assert "credentials" in str(told(use, AccessDenied, BotoCoreError))


@pytest.mark.parametrize("use", USES)
def test_half_of_the_credentials(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    aws_kit.use(monkeypatch, "http://127.0.0.1:1")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    told(use, AccessDenied, BotoCoreError)


@pytest.mark.parametrize("use", USES)
def test_profile_that_is_not_there(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    aws_kit.use(monkeypatch, None, AWS_PROFILE="nobody")

    told(use, AccessDenied, BotoCoreError)


@pytest.mark.parametrize("use", USES)
def test_endpoint_that_is_not_an_address(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    aws_kit.use(monkeypatch, "no address")

    told(use, BackendError, ValueError)


@pytest.mark.parametrize("use", USES)
def test_settings_of_the_sdk_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, use: str) -> None:
    broken = tmp_path / "config"
    broken.write_text("no = section\n")
    aws_kit.use(monkeypatch, None, AWS_CONFIG_FILE=str(broken))

    told(use, BackendError, BotoCoreError)


def test_unknown_error_of_the_sdk_is_still_mapped() -> None:
    error = translate(RuntimeError("with a secret in it"), "the topic", "a-topic")

    assert type(error) is BackendError
    assert str(error) == "The request to AWS for the topic 'a-topic' failed: RuntimeError."


def test_throttled_call_is_tried_again_by_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_ATTEMPTS", 4)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    with FaultyAWS() as faults:
        rule = faults.rule(status=503, code="SlowDown")
        aws_kit.use(monkeypatch, faults.address)
        told("stat", Unavailable)
    assert len(rule.seen) == 4


def test_secret_is_unavailable_within_its_deadline_when_the_store_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    manager = SecretsManager(aws_kit.environment(SETTINGS))
    monkeypatch.setattr(type(manager), "deadline_seconds", 0.2)
    with FaultyAWS() as faults:
        faults.rule(hold=threading.Event(), status=500)
        aws_kit.use(monkeypatch, faults.address)
        with pytest.raises(Unavailable, match="a-slow-name") as caught:
            manager.get_secret("a-slow-name")
    assert caught.value.resource == "a-slow-name"
