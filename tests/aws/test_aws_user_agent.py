"""What the SDK says of itself is put together once; nothing of it is lost."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from aws_errors import FaultyAWS
from totoms_aws.clients import Service, client, close_clients
from totoms_aws.configuration import AWSConfiguration

ASKING: Final[dict[Service, str]] = {"sns": "list_topics", "s3": "list_buckets", "sqs": "list_queues"}


def sent(faults: FaultyAWS, aws: AWSConfiguration, service: Service) -> tuple[dict[str, str], dict[str, str]]:
    """Return the headers of a request of our client, and of one of the SDK's own."""
    faults.rule(status=400, code="Refused")
    session = boto3.session.Session(botocore_session=botocore.session.Session())
    config = Config(retries={"mode": "standard", "total_max_attempts": 4})
    own = session.client(service, region_name=aws.region, config=config)
    for asked in (client(service, aws), own):
        with contextlib.suppress(ClientError):
            getattr(asked, ASKING[service])()
    own.close()
    ours, theirs = faults.requests
    return ours.headers, theirs.headers


def without_features(user_agent: str) -> list[str]:
    """Leave out the list of features, which the SDK counts for each request."""
    return [part for part in user_agent.split(" ") if not part.startswith("m/")]


@pytest.mark.parametrize("service", ASKING)
@pytest.mark.parametrize("app", ["", "blog", "my app/é#1", "a\r\nx-evil: 1"], ids=["none", "plain", "odd", "line"])
def test_user_agent_is_the_sdks_own(
    monkeypatch: pytest.MonkeyPatch, faulty_aws: AWSConfiguration, faults: FaultyAWS, service: Service, app: str
) -> None:
    monkeypatch.setenv("AWS_EXECUTION_ENV", "AWS_ECS_FARGATE")
    monkeypatch.setenv("AWS_SDK_UA_APP_ID", app)
    ours, theirs = sent(faults, faulty_aws, service)
    assert without_features(ours["user-agent"]) == without_features(theirs["user-agent"])
    assert ("app/" in ours["user-agent"]) is bool(app)
    assert ours.keys() == theirs.keys()
    assert ours["amz-sdk-request"] == theirs["amz-sdk-request"] == "attempt=1; max=4"


def test_application_of_a_profile_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, faulty_aws: AWSConfiguration, faults: FaultyAWS
) -> None:
    (tmp_path / "config").write_text("[profile blog]\nsdk_ua_app_id = from-the-profile\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "blog")
    close_clients()
    ours, _ = sent(faults, faulty_aws, "sns")
    assert " app/from-the-profile " in ours["user-agent"]


def test_retries_are_counted_in_their_header(faulty_aws: AWSConfiguration, faults: FaultyAWS) -> None:
    faults.rule(status=503, code="Unavailable", times=1)
    client("sns", faulty_aws).list_topics()
    assert [request.headers["amz-sdk-request"][:9] for request in faults.requests] == ["attempt=1", "attempt=2"]
    assert len({request.headers["amz-sdk-invocation-id"] for request in faults.requests}) == 1
