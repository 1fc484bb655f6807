"""Secrets of Secrets Manager: what the secrets contract does not see. Stages, names, answers that break off."""

from __future__ import annotations

import http.client
from typing import Any

import pytest

from standins.aws.errors import FaultyAWS
from support.aws import kit as aws_kit
from support.aws.secrets import AWSSecretsHarness, set_secret
from totoms import SecretsManager
from totoms.context import new_cid
from totoms.errors import NotFound, Unavailable
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.secrets import identifier_of


@pytest.fixture
def harness(aws: AWSConfiguration) -> AWSSecretsHarness:
    return AWSSecretsHarness(aws, FaultyAWS())


def test_stage_is_distinguished_from_a_version_id_by_its_length(
    aws: AWSConfiguration, harness: AWSSecretsHarness
) -> None:
    name, manager = new_cid(), harness.manager()
    first = set_secret(aws, name, b"first")
    second = set_secret(aws, name, b"second")

    assert manager.get_secret(name, version="AWSCURRENT") == manager.get_secret(name, version=second) == "second"
    assert manager.get_secret(name, version="AWSPREVIOUS") == manager.get_secret(name, version=first) == "first"
    with pytest.raises(NotFound, match="AWSPENDING"):
        manager.get_secret(name, version="AWSPENDING")


def test_stage_follows_a_rotation_and_a_versions_id_does_not(aws: AWSConfiguration, harness: AWSSecretsHarness) -> None:
    name, manager = new_cid(), harness.manager()
    first = set_secret(aws, name, b"first")
    set_secret(aws, name, b"second")
    assert manager.get_secret(name, version="AWSPREVIOUS") == manager.get_secret(name, version=first) == "first"

    set_secret(aws, name, b"third")
    harness.advance(manager.cache_seconds)

    assert manager.get_secret(name, version="AWSPREVIOUS") == "second"
    assert manager.get_secret(name, version=first) == "first"


def test_secret_is_named_by_its_environment(aws: AWSConfiguration) -> None:
    name = new_cid()
    set_secret(aws, name, b"of test")
    store: Any = aws_kit.sdk("secretsmanager", aws)

    assert store.get_secret_value(SecretId=f"test/{name}")["SecretString"] == "of test"
    other = AWSConfiguration(region=aws.region, environment="prod")
    with pytest.raises(NotFound, match=f"prod/{name}"):
        SecretsManager(aws_kit.environment(other)).get_secret(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b_c+d=e.f@g-h", "test/a/b_c+d=e.f@g-h"),
        ("a b", "test/a=20b"),
        ("a%2Fb", "test/a=252Fb"),
        ("ü", "test/=C3=BC"),
        ("a=2Fb", "test/a=3D2Fb"),
        ("==", "test/=="),
        ("=4%", "test/=4=25"),
        ("arn:aws:x", "test/arn=3Aaws=3Ax"),
    ],
)
def test_name_is_its_own_where_aws_allows_it(aws: AWSConfiguration, name: str, expected: str) -> None:
    assert identifier_of(name, aws) == expected


def test_name_that_is_too_long_for_aws_is_not_found(aws: AWSConfiguration) -> None:
    with pytest.raises(NotFound):
        SecretsManager(aws_kit.environment(aws)).get_secret("ü" * 200)


def test_secret_that_is_marked_for_deletion_is_not_found(aws: AWSConfiguration) -> None:
    name = new_cid()
    set_secret(aws, name, b"value")
    aws_kit.sdk("secretsmanager", aws).delete_secret(SecretId=f"test/{name}", RecoveryWindowInDays=7)

    with pytest.raises(NotFound, match=name):
        SecretsManager(aws_kit.environment(aws)).get_secret(name)


@pytest.mark.parametrize("chunked", [False, True])
def test_answer_that_breaks_off_leaves_nothing_of_the_value_behind(
    monkeypatch: pytest.MonkeyPatch, faulty_aws: AWSConfiguration, faults: FaultyAWS, chunked: bool
) -> None:
    aws_kit.once(monkeypatch)
    name, canary = new_cid(), new_cid()
    set_secret(faulty_aws, name, canary.encode() * 100)
    faults.rule(matches=lambda request: request.operation == "GetSecretValue", cut=3000, chunked=chunked)

    with pytest.raises(Unavailable) as caught:
        SecretsManager(aws_kit.environment(faulty_aws)).get_secret(name)

    assert caught.value.resource == name
    error: BaseException | None = caught.value
    seen = []
    while error is not None:
        seen.append(error)
        assert not isinstance(error, http.client.IncompleteRead)
        assert canary not in f"{error!s} {error!r} {error.args!r} {vars(error)!r}"
        error = error.__cause__ or error.__context__
    assert len(seen) >= 2


def test_answer_without_a_value_is_not_an_empty_secret(faulty_aws: AWSConfiguration, faults: FaultyAWS) -> None:
    name = new_cid()
    faults.ask = lambda _request: (200, [("content-type", "application/x-amz-json-1.1")], b"{}")  # type: ignore[method-assign]

    with pytest.raises(Unavailable) as caught:
        SecretsManager(aws_kit.environment(faulty_aws)).get_secret(name)

    assert caught.value.resource == name
