"""The parts of a subscription on SNS and SQS: created where that is allowed, otherwise reported as missing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from standins.aws.errors import FaultyAWS, Request
from support.aws import kit as aws_kit
from support.aws.messages import BusOfTests, make_topic, publish
from totoms.context import new_cid
from totoms.errors import AccessDenied, NotFound, Unsupported
from totoms.messages.driver import ORDERING
from totoms.messages.subscription import RetryPolicy, Subscription
from totoms_aws.configuration import AWSConfiguration

READING = {
    "GetQueueUrl",
    "GetQueueAttributes",
    "ListSubscriptionsByTopic",
    "GetSubscriptionAttributes",
    "GetCallerIdentity",
    "ReceiveMessage",
}
"""What a service that may only look asks for."""


class Account:
    """What an operator sees and does."""

    def __init__(self, settings: AWSConfiguration) -> None:
        self.settings = settings
        self.sns: Any = aws_kit.sdk("sns", settings)
        self.sqs: Any = aws_kit.sdk("sqs", settings)

    def url(self, queue: str) -> str:
        return str(self.sqs.get_queue_url(QueueName=queue)["QueueUrl"])

    def queue(self, name: str) -> dict[str, str]:
        answer = self.sqs.get_queue_attributes(QueueUrl=self.url(name), AttributeNames=["All"])
        return dict(answer["Attributes"])

    def subscriptions(self, topic: str) -> list[dict[str, str]]:
        found = self.sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
        return [{**one, **self.attributes(one["SubscriptionArn"])} for one in found]

    def attributes(self, arn: str) -> dict[str, str]:
        return dict(self.sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"])


@pytest.fixture
def account(faulty_aws: AWSConfiguration) -> Account:
    return Account(faulty_aws)


@pytest.fixture
def topic(account: Account) -> str:
    return make_topic(account.settings)


@pytest.fixture
async def bus(account: Account, topic: str) -> AsyncIterator[BusOfTests]:
    made = BusOfTests(aws_kit.environment(account.settings), {"posts": topic})
    yield made
    await made.close()


def subscription_of(topic: str, **settings: Any) -> Subscription:
    return Subscription(f"blog-{new_cid()[:12]}", topic, "posts", **settings)


async def receive(bus: BusOfTests, subscription: Subscription) -> Any:
    (received,) = await bus._receive(subscription, 1, 20.0)
    assert await bus._ack([received]) == [None]
    return received


async def test_everything_is_made(account: Account, bus: BusOfTests, topic: str) -> None:
    wanted = subscription_of(topic, retry=RetryPolicy(max_attempts=7))
    await bus._subscribe(wanted, create=True)

    queue, dead = account.queue(wanted.name), account.queue(f"{wanted.name}-dead")
    redrive = json.loads(queue["RedrivePolicy"])
    assert redrive["deadLetterTargetArn"] == dead["QueueArn"]
    assert int(redrive["maxReceiveCount"]) == 12  # five more than ours: SQS is the net, and knows no reason
    assert {queue["MessageRetentionPeriod"], dead["MessageRetentionPeriod"]} == {str(14 * 24 * 3600)}
    (statement,) = json.loads(queue["Policy"])["Statement"]
    assert statement["Principal"] == {"Service": "sns.amazonaws.com"}
    assert statement["Action"] == "sqs:SendMessage"
    assert statement["Resource"] == queue["QueueArn"]
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": topic}}
    (subscribed,) = account.subscriptions(topic)
    assert (subscribed["Protocol"], subscribed["Endpoint"]) == ("sqs", queue["QueueArn"])
    assert subscribed["RawMessageDelivery"] == "true"


async def test_queue_is_made_with_its_policy_in_one_step(bus: BusOfTests, topic: str, faults: FaultyAWS) -> None:
    """A policy that is set later takes up to a minute to hold, and SNS drops what it may not send."""
    await bus._subscribe(subscription_of(topic), create=True)
    asked = [request.operation for request in faults.requests]
    assert "SetQueueAttributes" not in asked
    assert asked.index("Subscribe") > max(n for n, operation in enumerate(asked) if operation == "CreateQueue")


async def test_queue_created_by_another_process_gets_missing_settings(
    account: Account, bus: BusOfTests, topic: str, faults: FaultyAWS
) -> None:
    wanted = subscription_of(topic)
    rules = []
    not_yet = '{"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": ""}'
    for name in (wanted.name, f"{wanted.name}-dead"):
        account.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "77"})
        asked = json.dumps({"QueueName": name}).encode()
        rules.append(faults.rule(matches=_asks(asked), times=1, status=400, answer=not_yet.encode()))
    await bus._subscribe(wanted, create=True)
    assert [len(rule.seen) for rule in rules] == [1, 1]
    queue = account.queue(wanted.name)
    assert json.loads(queue["Policy"])["Statement"][0]["Resource"] == queue["QueueArn"]
    assert json.loads(queue["RedrivePolicy"])["deadLetterTargetArn"].endswith(f":{wanted.name}-dead")
    assert queue["VisibilityTimeout"] == "77"


def _asks(body: bytes) -> Callable[[Request], bool]:
    return lambda request: request.operation == "GetQueueUrl" and request.body == body


async def test_second_start_changes_nothing(account: Account, bus: BusOfTests, topic: str, faults: FaultyAWS) -> None:
    wanted = subscription_of(topic)
    await bus._subscribe(wanted, create=True)
    faults.requests.clear()
    await bus._subscribe(wanted, create=True)
    assert {request.operation for request in faults.requests} <= READING
    assert len(account.subscriptions(topic)) == 1


async def test_fifo_topic_has_fifo_queues(account: Account) -> None:
    topic = make_topic(account.settings, fifo=True)
    bus = BusOfTests(aws_kit.environment(account.settings), {"posts": topic})
    wanted = subscription_of(topic, ordered=True)
    try:
        assert ORDERING in bus.capabilities
        await bus._subscribe(wanted, create=True)
    finally:
        await bus.close()
    assert account.queue(f"{wanted.name}.fifo")["FifoQueue"] == "true"
    assert account.queue(f"{wanted.name}-dead.fifo")["FifoQueue"] == "true"


async def test_order_on_a_standard_topic_is_unsupported(bus: BusOfTests, topic: str) -> None:
    with pytest.raises(Unsupported, match=r"\.fifo"):
        await bus._subscribe(subscription_of(topic, ordered=True), create=True)


async def test_statements_of_others_stay_in_the_policy(account: Account, bus: BusOfTests, topic: str) -> None:
    wanted = subscription_of(topic)
    await bus._subscribe(wanted, create=True)
    url, own = account.url(wanted.name), {"Effect": "Allow", "Principal": "*", "Action": "sqs:ReceiveMessage"}
    mine = {"Sid": "mine", **own, "Resource": account.queue(wanted.name)["QueueArn"]}
    account.sqs.set_queue_attributes(
        QueueUrl=url, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": mine})}
    )
    await bus._subscribe(wanted, create=True)
    statements = json.loads(account.queue(wanted.name)["Policy"])["Statement"]
    assert statements[0] == mine
    assert [one["Condition"] for one in statements[1:]] == [{"ArnEquals": {"aws:SourceArn": topic}}]


async def test_changed_statement_of_totoms_is_replaced(account: Account, bus: BusOfTests, topic: str) -> None:
    """Two statements of one name SQS refuses."""
    wanted = subscription_of(topic)
    await bus._subscribe(wanted, create=True)
    policy = json.loads(account.queue(wanted.name)["Policy"])
    good = policy["Statement"][0]
    policy["Statement"] = [{**good, "Condition": {"ArnEquals": {"aws:SourceArn": f"{topic}-of-another"}}}]
    account.sqs.set_queue_attributes(QueueUrl=account.url(wanted.name), Attributes={"Policy": json.dumps(policy)})
    await bus._subscribe(wanted, create=True)
    assert json.loads(account.queue(wanted.name)["Policy"])["Statement"] == [good]


async def test_redrive_that_is_quicker_than_ours_is_slowed_and_keeps_its_queue(
    account: Account, bus: BusOfTests, topic: str
) -> None:
    wanted = subscription_of(topic, retry=RetryPolicy(max_attempts=3))
    await bus._subscribe(wanted, create=True)
    account.sqs.create_queue(QueueName=f"{wanted.name}-elsewhere")
    arn = account.queue(f"{wanted.name}-elsewhere")["QueueArn"]
    for given, expected in ((1, 8), (20, 20)):
        redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": given})
        account.sqs.set_queue_attributes(QueueUrl=account.url(wanted.name), Attributes={"RedrivePolicy": redrive})
        await bus._subscribe(wanted, create=True)
        found = json.loads(account.queue(wanted.name)["RedrivePolicy"])
        assert (found["deadLetterTargetArn"], int(found["maxReceiveCount"])) == (arn, expected)


# --- create_subscriptions=False ---


async def test_looking_changes_nothing(account: Account, bus: BusOfTests, topic: str, faults: FaultyAWS) -> None:
    wanted = subscription_of(topic)
    await bus._subscribe(wanted, create=True)
    faults.requests.clear()
    await bus._subscribe(wanted, create=False)
    publish(account.settings, topic, "a body", {})
    assert (await receive(bus, wanted)).body == b"a body"
    own = {"Publish", "DeleteMessageBatch"}
    assert {request.operation for request in faults.requests} - own <= READING


def _with_condition(account: Account, wanted: Subscription, condition: Any) -> None:
    policy = json.loads(account.queue(wanted.name)["Policy"])
    (statement,) = policy["Statement"]
    policy["Statement"] = [{**statement, "Condition": condition}] if condition is not None else [_without(statement)]
    account.sqs.set_queue_attributes(QueueUrl=account.url(wanted.name), Attributes={"Policy": json.dumps(policy)})


def _without(statement: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in statement.items() if name != "Condition"}


SURE: list[Any] = [
    None,
    {"StringEquals": {"aws:SourceAccount": "000000000000"}},
    {"ForAnyValue:ArnLike": {"aws:SourceArn": ["arn:aws:sns:*:*:other", "arn:aws:sns:*:*:*"]}},
    {"ArnLikeIfExists": {"AWS:SourceArn": "arn:aws:sns:*"}},
    {"StringLike": {"aws:SourceAccount": "0000*"}, "ArnLike": {"aws:SourceArn": "arn:aws:sns:*"}},
]
PERHAPS: list[Any] = [
    {"StringEquals": {"aws:SourceOrgID": "o-example"}},
    {"ForAnyValue:StringLike": {"aws:SourceOrgPaths": "o-example/*"}},
    {"Bool": {"aws:SecureTransport": "true"}},
    {"StringEquals": {"aws:SourceAccount": "${aws:PrincipalAccount}"}},
]
NEVER: list[Any] = [
    {"StringEquals": {"aws:SourceAccount": "111111111111"}},
    {"ForAnyValue:ArnEquals": {"aws:SourceArn": "arn:aws:sns:eu-north-1:000000000000:other"}},
    {"StringEquals": {"aws:SourceOrgID": "o-example", "aws:SourceAccount": "111111111111"}},
]


@pytest.mark.parametrize("condition", [*SURE, *PERHAPS], ids=json.dumps)
async def test_looking_takes_every_valid_policy_and_warns_where_it_cannot_tell(
    account: Account, bus: BusOfTests, topic: str, condition: Any, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = subscription_of(topic)
    await bus._subscribe(wanted, create=True)
    _with_condition(account, wanted, condition)
    caplog.clear()
    await bus._subscribe(wanted, create=False)
    lines = [record.getMessage() for record in caplog.records]
    warned = [line for line in lines if "Cannot tell from its conditions" in line]
    assert [wanted.name in line and topic in line for line in warned] == ([True] if condition in PERHAPS else [])


@pytest.mark.parametrize("condition", NEVER, ids=json.dumps)
async def test_looking_refuses_a_policy_for_another_topic_or_account(
    account: Account, bus: BusOfTests, topic: str, condition: Any
) -> None:
    wanted = subscription_of(topic)
    await bus._subscribe(wanted, create=True)
    _with_condition(account, wanted, condition)
    with pytest.raises(NotFound, match="the statement in the policy of the queue"):
        await bus._subscribe(wanted, create=False)


async def test_check_at_start_of_an_empty_account_lists_everything(
    bus: BusOfTests, topic: str, faults: FaultyAWS
) -> None:
    wanted = subscription_of(topic)
    faults.requests.clear()
    with pytest.raises(NotFound) as caught:
        await bus._subscribe(wanted, create=False)
    for part in (f"the queue {wanted.name!r}", f"{wanted.name}-dead", f"to the topic {topic!r}"):
        assert part in str(caught.value)
    assert caught.value.resource == wanted.name
    assert {request.operation for request in faults.requests} <= READING


def _no_policy(account: Account, wanted: Subscription) -> None:
    account.sqs.set_queue_attributes(QueueUrl=account.url(wanted.name), Attributes={"Policy": ""})


def _no_redrive(account: Account, wanted: Subscription) -> None:
    policy = account.queue(wanted.name)["Policy"]
    account.sqs.delete_queue(QueueUrl=account.url(wanted.name))
    account.sqs.create_queue(QueueName=wanted.name, Attributes={"Policy": policy})


def _no_subscription(account: Account, wanted: Subscription) -> None:
    for one in account.subscriptions(wanted.topic):
        account.sns.unsubscribe(SubscriptionArn=one["SubscriptionArn"])


def _no_dead_queue(account: Account, wanted: Subscription) -> None:
    account.sqs.delete_queue(QueueUrl=account.url(f"{wanted.name}-dead"))


def _few_receives(account: Account, wanted: Subscription) -> None:
    dead = account.queue(f"{wanted.name}-dead")["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": 4})
    account.sqs.set_queue_attributes(QueueUrl=account.url(wanted.name), Attributes={"RedrivePolicy": redrive})


@pytest.mark.parametrize(
    ("remove", "told"),
    [
        (_no_policy, "the statement in the policy of the queue {name!r} that lets the topic send to it"),
        (_no_redrive, "the redrive policy of the queue {name!r}, to a dead-letter queue"),
        (_no_subscription, "the subscription of the queue {name!r} to the topic {topic!r}"),
        (_no_dead_queue, "the dead-letter queue '{name}-dead'"),
        (
            _few_receives,
            "attempts: the redrive policy of the queue {name!r} has a maxReceiveCount of 4, but the service makes 5",
        ),
    ],
)
async def test_check_at_start_names_the_one_thing_that_is_missing(
    account: Account, bus: BusOfTests, topic: str, remove: Any, told: str
) -> None:
    wanted = subscription_of(topic)
    await bus._subscribe(wanted, create=True)
    remove(account, wanted)
    looking = BusOfTests(aws_kit.environment(account.settings), {"posts": topic})  # remembers nothing
    try:
        with pytest.raises(NotFound) as caught:
            await looking._subscribe(wanted, create=False)
    finally:
        await looking.close()
    missing = str(caught.value).partition("Missing: ")[2]
    assert missing == told.format(name=wanted.name, topic=topic) + "."


async def test_check_at_start_lists_all_that_is_missing(account: Account, bus: BusOfTests, topic: str) -> None:
    wanted = subscription_of(topic)
    account.sqs.create_queue(QueueName=wanted.name)
    with pytest.raises(NotFound) as caught:
        await bus._subscribe(wanted, create=False)
    assert str(caught.value).partition("Missing: ")[2] == (
        f"the redrive policy of the queue {wanted.name!r}, to a dead-letter queue; "
        f"the statement in the policy of the queue {wanted.name!r} that lets the topic send to it; "
        f"the subscription of the queue {wanted.name!r} to the topic {topic!r}."
    )


async def test_subscription_that_waits_for_its_confirmation_is_none(
    account: Account, bus: BusOfTests, topic: str, faults: FaultyAWS
) -> None:
    """As that of another account's topic, where its owner subscribed the queue."""
    wanted = subscription_of(topic)
    await bus._subscribe(wanted, create=True)
    (subscribed,) = account.subscriptions(topic)
    inside = (
        f"<Subscriptions><member><SubscriptionArn>PendingConfirmation</SubscriptionArn><Protocol>sqs</Protocol>"
        f"<Endpoint>{subscribed['Endpoint']}</Endpoint><TopicArn>{topic}</TopicArn></member></Subscriptions>"
    )
    name = "ListSubscriptionsByTopic"
    answer = f"<{name}Response><{name}Result>{inside}</{name}Result></{name}Response>".encode()
    faults.rule(matches=lambda request: request.operation == name, status=200, answer=answer)
    with pytest.raises(NotFound, match="Missing: the confirmation of the subscription of the queue"):
        await bus._subscribe(wanted, create=False)
    faults.requests.clear()
    await bus._subscribe(wanted, create=True)  # by the queue's own account it needs none
    assert "Subscribe" in {request.operation for request in faults.requests}
    answer = (
        b"<SubscribeResponse><SubscribeResult><SubscriptionArn>pending confirmation</SubscriptionArn>"
        b"</SubscribeResult></SubscribeResponse>"
    )
    faults.rule(matches=lambda request: request.operation == "Subscribe", status=200, answer=answer)
    with pytest.raises(NotFound, match="is not confirmed"):
        await bus._subscribe(wanted, create=True)


async def test_missing_topic_is_reported_and_not_made(account: Account, bus: BusOfTests, faults: FaultyAWS) -> None:
    missing = f"arn:aws:sns:{aws_kit.REGION}:000000000000:nobody-{new_cid()}"
    faults.requests.clear()
    for create in (False, True):
        with pytest.raises(NotFound, match="nobody-"):
            await bus._subscribe(subscription_of(missing), create=create)
    assert "CreateTopic" not in {request.operation for request in faults.requests}


@pytest.mark.parametrize("operation", ["CreateQueue", "Subscribe", "SetQueueAttributes"])
async def test_what_may_not_be_made_is_access_denied(
    account: Account, bus: BusOfTests, topic: str, faults: FaultyAWS, operation: str
) -> None:
    wanted = subscription_of(topic)
    if operation == "SetQueueAttributes":  # of a queue that is there already
        account.sqs.create_queue(QueueName=wanted.name)
    faults.rule(matches=lambda request: request.operation == operation, status=403, code="AccessDenied")
    with pytest.raises(AccessDenied) as caught:
        await bus._subscribe(wanted, create=True)
    assert caught.value.resource in (wanted.name, f"{wanted.name}-dead", topic)


# --- names and ARNs ---


async def test_bare_name_is_a_topic_of_the_account_and_is_not_made(account: Account, faults: FaultyAWS) -> None:
    topic = make_topic(account.settings)
    name, nobody = topic.rpartition(":")[2], f"nobody-{new_cid()}"
    bus = BusOfTests(aws_kit.environment(account.settings), {"posts": name})
    wanted = subscription_of(name)
    faults.requests.clear()
    try:
        await bus._subscribe(wanted, create=True)
        publish(account.settings, topic, "a body", {})
        assert (await receive(bus, wanted)).body == b"a body"
        with pytest.raises(NotFound):
            await bus._subscribe(subscription_of(nobody), create=True)
    finally:
        await bus.close()
    asked = [request.operation for request in faults.requests]
    assert "CreateTopic" not in asked
    assert asked.count("GetCallerIdentity") == 1


@pytest.mark.parametrize("create", [True, False])
async def test_topic_of_another_region_is_unsupported(bus: BusOfTests, create: bool) -> None:
    with pytest.raises(Unsupported, match="another region"):
        await bus._subscribe(subscription_of("arn:aws:sns:us-east-1:000000000000:posts"), create=create)


@pytest.mark.parametrize("held", ["", "not a topic", "arn:aws:sqs:eu-north-1:000000000000:posts", "a/b", "x" * 257])
async def test_secret_that_holds_no_topic_is_not_found_and_not_logged(bus: BusOfTests, held: str) -> None:
    with pytest.raises(NotFound) as caught:
        await bus._subscribe(subscription_of(held) if held else subscription_of(" "), create=True)
    assert not held or held not in str(caught.value)


async def test_long_or_odd_name_of_a_subscription_keeps_a_queue_of_its_own(
    account: Account, bus: BusOfTests, topic: str
) -> None:
    names = [f"service of {new_cid()} {letter}" + "x" * 80 for letter in "ab"]
    for name in names:
        await bus._subscribe(Subscription(name, topic, "posts"), create=True)
    endpoints = {one["Endpoint"] for one in account.subscriptions(topic)}
    assert len(endpoints) == 2


# --- raw delivery ---


@pytest.mark.parametrize("raw", ["true", "false"])
async def test_raw_delivery_is_as_the_subscription_says(
    account: Account, bus: BusOfTests, topic: str, raw: str
) -> None:
    wanted = subscription_of(topic)
    await bus._subscribe(wanted, create=True)
    (subscribed,) = account.subscriptions(topic)
    account.sns.set_subscription_attributes(
        SubscriptionArn=subscribed["SubscriptionArn"], AttributeName="RawMessageDelivery", AttributeValue=raw
    )
    for create in (True, False):
        await bus._subscribe(wanted, create=create)
        # What a service publishes may look like SNS's own envelope. It is not taken for one.
        text = json.dumps({"Type": "Notification", "MessageId": "m", "Message": "inner", "TopicArn": topic})
        publish(account.settings, topic, text, {"traceparent": "00-1"})
        received = await receive(bus, wanted)
        assert received.body.decode() == text
        assert received.attributes["traceparent"] == "00-1"
