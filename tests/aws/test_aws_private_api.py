"""The private parts of botocore: still there, and what is built on them changes nothing that AWS sees."""

from __future__ import annotations

import contextlib
import importlib
import logging
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from standins.aws.errors import FaultyAWS
from support.aws import kit as aws_kit
from totoms.clients import close_clients
from totoms_aws import private_api
from totoms_aws.clients import Service, client
from totoms_aws.configuration import AWSConfiguration

ASKING: Final[dict[Service, str]] = {"sns": "list_topics", "s3": "list_buckets", "sqs": "list_queues"}


def plain(aws: AWSConfiguration, service: Service) -> tuple[Any, str]:
    """Return the SDK's own client, and what its session adds to the User-Agent."""
    session = botocore.session.Session()
    config = Config(retries={"mode": "standard", "total_max_attempts": 4})
    made = boto3.session.Session(botocore_session=session).client(service, region_name=aws.region, config=config)
    return made, session.user_agent_extra


def sent(faults: FaultyAWS, aws: AWSConfiguration, service: Service) -> tuple[dict[str, str], dict[str, str]]:
    """Return the headers of a request of our client, and of one of the SDK's own."""
    faults.rule(status=400, code="Refused")
    own, _ = plain(aws, service)
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


def test_application_of_a_profile_is_reported(
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


def test_user_agent_is_there_to_be_fixed(aws: AWSConfiguration) -> None:
    made, extra = plain(aws, "sns")
    fixed = private_api.fixed_user_agent(made.meta.config, extra).user_agent
    assert fixed
    assert fixed.startswith("Boto3/")
    assert extra not in fixed
    assert private_api.fixed_user_agent(object(), extra).user_agent is None


def test_form_is_a_dict_before_it_is_sent(faulty_aws: AWSConfiguration, faults: FaultyAWS) -> None:
    own, _ = plain(faulty_aws, "sns")
    bodies: list[Any] = []
    own.meta.events.register("before-call", lambda params, **_: bodies.append(params["body"]))
    faults.rule(status=400, code="Refused")
    odd = "a b&c=d/e+\N{SNOWMAN}~*'\n"
    for asked in (client("sns", faulty_aws), own):
        with contextlib.suppress(ClientError):
            asked.publish(TopicArn="arn:aws:sns:eu-north-1:000000000000:posts", Message=odd)
    assert [type(body) for body in bodies] == [dict]
    ours, theirs = (parse_qs(request.body.decode()) for request in faults.requests)
    assert ours == theirs
    assert ours["Message"] == [odd]


def test_body_in_another_form_is_left_to_the_sdk() -> None:
    for params in ({"body": b"a=b"}, {}):
        before = dict(params)
        private_api._encode_form(params)
        assert params == before


def test_truncated_answer_is_a_closed_connection(
    monkeypatch: pytest.MonkeyPatch, faulty_aws: AWSConfiguration, faults: FaultyAWS
) -> None:
    aws_kit.once(monkeypatch)
    close_clients()
    sqs = client("sqs", faulty_aws)
    sqs.create_queue(QueueName="a-queue")
    faults.rule(matches=lambda request: request.operation == "ListQueues", cut=10)
    with pytest.raises(ConnectionClosedError):
        sqs.list_queues()


@pytest.mark.parametrize("name", private_api._QUOTING_LOGGERS)
def test_loggers_that_quote_requests_have_these_names(name: str) -> None:
    found = [value for value in vars(importlib.import_module(name)).values() if isinstance(value, logging.Logger)]
    assert [logger.name for logger in found] == [name]
