"""Publishing to SNS and SQS: concurrent messages share requests, and each has its own result."""

from __future__ import annotations

import asyncio
import json
import threading
from urllib.parse import parse_qs

import pytest

from standins.aws.errors import FaultyAWS, Request
from support.aws import kit as aws_kit
from support.aws.messages import BusOfTests, make_topic
from totoms.clients import close_clients
from totoms.context import new_cid
from totoms.errors import AccessDenied, BackendError, MessageTooLarge, NotFound, Unavailable, Unsupported
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.message import MessageDestination, TotoMessage
from totoms.messages.subscription import Subscription
from totoms.threads import Workers
from totoms_aws.configuration import AWSConfiguration

POSTS = MessageDestination(topic="posts")


def message(number: int = 0, filling: str = "") -> TotoMessage:
    return TotoMessage(type="posted", data={"number": number, "filling": filling})


def publishes(faults: FaultyAWS) -> list[dict[str, list[str]]]:
    """What was asked of SNS: the arguments of each ``Publish`` and ``PublishBatch``."""
    asked = [request for request in faults.requests if request.operation.startswith("Publish")]
    return [parse_qs(request.body.decode()) for request in asked]


def texts(asked: dict[str, list[str]]) -> list[str]:
    return [values[0] for name, values in asked.items() if name == "Message" or name.endswith(".Message")]


def is_publishing(request: Request) -> bool:
    return request.operation.startswith("Publish")


async def test_who_publishes_alone_is_served_at_once(bus: BusOfTests, faults: FaultyAWS) -> None:
    for number in range(3):
        await bus.publish_message(POSTS, message(number))
    assert [asked["Action"] for asked in publishes(faults)] == [["Publish"]] * 3


async def test_many_at_once_leave_ten_in_a_request(bus: BusOfTests, faults: FaultyAWS) -> None:
    await asyncio.gather(*(bus.publish_message(POSTS, message(number)) for number in range(200)))
    sizes = [len(texts(asked)) for asked in publishes(faults)]
    assert sum(sizes) == 200
    assert max(sizes) == 10
    assert len(sizes) <= 30


async def test_those_that_come_while_a_request_is_under_way_leave_with_the_next(
    bus: BusOfTests, faults: FaultyAWS
) -> None:
    held = faults.rule(matches=is_publishing, hold=threading.Event(), times=4)
    first = [asyncio.ensure_future(bus.publish_message(POSTS, message()))]
    for count in range(1, 5):  # four requests are as many as are under way before more gather
        while len(held.seen) < count:
            await asyncio.sleep(0.01)
        if count < 4:
            first.append(asyncio.ensure_future(bus.publish_message(POSTS, message(count))))
    gathered: list[asyncio.Future[str]] = []
    for number in range(9):
        gathered.append(asyncio.ensure_future(bus.publish_message(POSTS, message(number))))
        for _ in range(20):  # turns of the loop, in which it could leave alone
            await asyncio.sleep(0)
    assert held.hold is not None
    held.hold.set()
    await asyncio.gather(*first, *gathered)
    assert [len(texts(asked)) for asked in publishes(faults)] == [1, 1, 1, 1, 9]


async def test_request_is_not_larger_than_sns_takes(bus: BusOfTests, faults: FaultyAWS) -> None:
    await asyncio.gather(*(bus.publish_message(POSTS, message(number, "x" * 60_000)) for number in range(20)))
    for asked in publishes(faults):
        assert sum(len(text.encode()) for text in texts(asked)) <= 256 * 1024
    assert max(len(texts(asked)) for asked in publishes(faults)) == 4


async def test_failed_entry_of_a_batch_fails_alone(bus: BusOfTests, faults: FaultyAWS) -> None:
    entries = {0: "", 1: "InternalError", 2: "", 3: "AuthorizationError", 4: "InvalidParameter"}
    good = "".join(f"<member><Id>{n}</Id><MessageId>m</MessageId></member>" for n, code in entries.items() if not code)
    bad = "".join(
        f"<member><Id>{n}</Id><Code>{code}</Code><SenderFault>true</SenderFault><Message>told</Message></member>"
        for n, code in entries.items()
        if code
    )
    inside = f"<Successful>{good}</Successful><Failed>{bad}</Failed>"
    document = f"<PublishBatchResponse><PublishBatchResult>{inside}</PublishBatchResult></PublishBatchResponse>"
    faults.rule(matches=is_publishing, status=200, answer=document.encode(), times=1)
    sent = [bus.publish_message(POSTS, message(number)) for number in range(5)]
    results = await asyncio.gather(*sent, return_exceptions=True)
    assert [type(result) for result in results] == [str, str, str, AccessDenied, BackendError]
    together, alone = publishes(faults)  # what SNS could not take just then is sent again, as the SDK does with one
    assert texts(alone) == texts(together)[1:2]


async def test_failed_entry_of_an_ordered_batch_is_not_sent_after_those_behind_it(
    faulty_aws: AWSConfiguration, faults: FaultyAWS
) -> None:
    bus = BusOfTests(aws_kit.environment(faulty_aws), {"posts": make_topic(faulty_aws, fifo=True)})
    good = "<Successful><member><Id>1</Id><MessageId>m</MessageId></member></Successful>"
    bad = "<Failed><member><Id>0</Id><Code>InternalError</Code><SenderFault>false</SenderFault></member></Failed>"
    document = f"<PublishBatchResponse><PublishBatchResult>{good}{bad}</PublishBatchResult></PublishBatchResponse>"
    faults.rule(matches=is_publishing, status=200, answer=document.encode(), times=1)
    try:
        first, second = await bus.publish_messages(POSTS, [message(0), message(1)], ordering_key="key")
    finally:
        await bus.close()
    assert (type(first), type(second)) == (Unavailable, str)
    assert len(publishes(faults)) == 1


@pytest.mark.parametrize("code", ["BatchRequestTooLong", "InvalidParameter"])
async def test_batch_that_is_refused_as_a_whole_is_sent_one_by_one(
    bus: BusOfTests, faults: FaultyAWS, code: str
) -> None:
    faults.rule(matches=lambda request: request.operation == "PublishBatch", status=400, code=code)
    sent = [bus.publish_message(POSTS, message(number)) for number in range(3)]
    assert [type(result) for result in await asyncio.gather(*sent)] == [str] * 3
    assert [asked["Action"][0] for asked in publishes(faults)] == ["PublishBatch", "Publish", "Publish", "Publish"]


@pytest.mark.parametrize("name", ["Publish", "PublishBatch"])
async def test_malformed_answer_fails_every_publisher_that_waits(bus: BusOfTests, faults: FaultyAWS, name: str) -> None:
    inside = "<Successful><member><Id>not a number</Id></member></Successful>"
    document = f"<{name}Response><{name}Result>{inside}</{name}Result></{name}Response>"
    if name == "Publish":
        document = "no document"
    faults.rule(matches=is_publishing, status=200, answer=document.encode())
    sent = [bus.publish_message(POSTS, message(number)) for number in range(1 if name == "Publish" else 2)]
    async with asyncio.timeout(120):
        results = await asyncio.gather(*sent, return_exceptions=True)
    assert all(isinstance(result, BackendError) and result.__cause__ is not None for result in results)


async def test_publisher_gets_an_error_when_no_thread_can_start(
    bus: BusOfTests, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("totoms_aws.messages.publisher.PUBLISHING", Workers(4, "of this test"))
    with monkeypatch.context() as starting:
        starting.setattr(threading.Thread, "start", refuse)
        with pytest.raises(Unavailable):
            await bus.publish_message(POSTS, message())
    assert await bus.publish_message(POSTS, message())


async def test_message_that_takes_more_room_on_sns_is_refused_before_it_is_sent(
    bus: BusOfTests, faults: FaultyAWS
) -> None:
    with pytest.raises(MessageTooLarge) as caught:  # three bytes, and six as SNS takes it
        await bus.publish_message(POSTS, message(filling="\uffff" * 60_000))
    assert caught.value.resource
    assert publishes(faults) == []


async def test_destinations_of_long_ago_are_forgotten_and_those_in_use_are_not(
    bus: BusOfTests, faults: FaultyAWS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("totoms_aws.messages.publisher._MAX_BATCHERS", 3)
    monkeypatch.setattr("totoms_aws.messages.queues._MAX_REMEMBERED", 3)
    held = faults.rule(matches=is_publishing, hold=threading.Event(), times=1)
    waiting = asyncio.ensure_future(bus.publish_message(POSTS, message()))
    names = [f"jobs-{new_cid()[:12]}" for _ in range(6)]
    for name in names:
        await bus.publish_message(MessageDestination(queue=name), message())
    assert len(bus._publisher._batchers) <= 3
    assert len(bus._queues._known) <= 3
    assert (True, bus.topics["posts"], 0) in bus._publisher._batchers
    assert held.hold is not None
    held.hold.set()
    assert await waiting


async def test_close_waits_for_what_is_under_way(bus: BusOfTests, faults: FaultyAWS) -> None:
    held = faults.rule(matches=is_publishing, hold=threading.Event(), times=1)
    publishing = asyncio.ensure_future(bus.publish_message(POSTS, message()))
    while not held.seen:
        await asyncio.sleep(0.01)
    closing = asyncio.ensure_future(bus.close())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not closing.done()
    assert held.hold is not None
    held.hold.set()
    await closing
    assert publishing.done()
    assert await publishing


async def test_entry_that_the_answer_forgets_is_not_taken_for_sent(bus: BusOfTests, faults: FaultyAWS) -> None:
    inside = "<Successful><member><Id>1</Id><MessageId>m</MessageId></member></Successful>"
    document = f"<PublishBatchResponse><PublishBatchResult>{inside}</PublishBatchResult></PublishBatchResponse>"
    faults.rule(matches=is_publishing, status=200, answer=document.encode())
    sent = [bus.publish_message(POSTS, message(number)) for number in range(2)]
    results = await asyncio.gather(*sent, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable, str]


ERRORS = [
    (403, "AuthorizationError", AccessDenied),
    (403, "ExpiredToken", AccessDenied),
    (404, "NotFound", NotFound),
    (403, "InvalidClientTokenId", AccessDenied),
    (400, "Throttling", Unavailable),
    (429, "Throttled", Unavailable),
    (500, "InternalError", Unavailable),
    (400, "KMSThrottling", Unavailable),
    (400, "KMSAccessDenied", AccessDenied),
    (400, "InvalidParameter", BackendError),
]


@pytest.mark.parametrize(("status", "code", "error"), ERRORS, ids=[code for _, code, _ in ERRORS])
async def test_what_sns_refuses_is_reported_with_the_topic(
    bus: BusOfTests,
    topic: str,
    faults: FaultyAWS,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    error: type[BackendError],
) -> None:
    aws_kit.once(monkeypatch)
    close_clients()
    faults.rule(matches=is_publishing, status=status, code=code)
    with pytest.raises(error) as caught:
        await bus.publish_message(POSTS, message())
    assert type(caught.value) is error
    assert caught.value.resource == topic
    assert caught.value.__cause__ is not None


QUEUE_ERRORS = [
    (403, "AccessDenied", AccessDenied),
    (400, "AWS.SimpleQueueService.NonExistentQueue", NotFound),
    (403, "ExpiredToken", AccessDenied),
    (403, "RequestThrottled", Unavailable),
    (500, "InternalFailure", Unavailable),
    (400, "KmsAccessDenied", AccessDenied),
    (400, "KMS.AccessDeniedException", AccessDenied),
    (400, "KMS.ThrottlingException", Unavailable),
    (403, "OverLimit", Unavailable),
]


@pytest.mark.parametrize(("status", "code", "error"), QUEUE_ERRORS, ids=[code for _, code, _ in QUEUE_ERRORS])
async def test_what_sqs_refuses_is_reported_with_the_queue(
    bus: BusOfTests,
    topic: str,
    faults: FaultyAWS,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    error: type[BackendError],
) -> None:
    aws_kit.once(monkeypatch)
    close_clients()
    wanted = Subscription(f"blog-{new_cid()[:12]}", topic, "posts")
    await bus._subscribe(wanted, create=True)
    faults.rule(matches=lambda request: request.operation == "ReceiveMessage", status=status, code=code)
    with pytest.raises(error) as caught:
        await bus._receive(wanted, 1, 0.0)
    assert type(caught.value) is error
    assert caught.value.resource == wanted.name


async def test_topic_of_another_account_is_published_to_as_it_is_given(
    faulty_aws: AWSConfiguration, faults: FaultyAWS
) -> None:
    arn = f"arn:aws:sns:{aws_kit.REGION}:111122223333:posts"
    bus = BusOfTests(aws_kit.environment(faulty_aws), {"posts": arn})
    document = "<PublishResponse><PublishResult><MessageId>m</MessageId></PublishResult></PublishResponse>"
    faults.rule(matches=is_publishing, status=200, answer=document.encode())
    await bus.publish_message(POSTS, message())
    await bus.close()
    assert [asked["TopicArn"] for asked in publishes(faults)] == [[arn]]


async def test_topic_of_another_region_is_refused_before_anything_is_sent(
    faulty_aws: AWSConfiguration, faults: FaultyAWS
) -> None:
    arn = "arn:aws:sns:us-east-1:000000000000:posts"
    bus = BusOfTests(aws_kit.environment(faulty_aws), {"posts": arn})
    with pytest.raises(Unsupported, match="another region") as caught:
        await bus.publish_message(POSTS, message())
    await bus.close()
    assert caught.value.resource == arn
    assert faults.requests == []


# --- queues ---


async def test_queue_is_made_when_it_is_first_written_to(
    bus: BusOfTests, faulty_aws: AWSConfiguration, faults: FaultyAWS
) -> None:
    queue = f"jobs-{new_cid()[:12]}"
    await bus.publish_message(MessageDestination(queue=queue), message(7))
    sqs = aws_kit.sdk("sqs", faulty_aws)
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    (came,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]
    assert json.loads(came["Body"])["data"]["number"] == 7
    await bus.publish_message(MessageDestination(queue=url), message(8))  # by its URL as well
    assert [request.operation for request in faults.requests].count("CreateQueue") == 1


async def test_queue_that_was_deleted_meanwhile_is_made_again(
    bus: BusOfTests, faulty_aws: AWSConfiguration, faults: FaultyAWS
) -> None:
    queue = MessageDestination(queue=f"jobs-{new_cid()[:12]}")
    await bus.publish_message(queue, message())
    sqs = aws_kit.sdk("sqs", faulty_aws)
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=queue.queue)["QueueUrl"])
    await bus.publish_message(queue, message())
    assert [request.operation for request in faults.requests].count("CreateQueue") == 2


async def test_queue_that_was_deleted_just_now_is_unavailable(bus: BusOfTests, faults: FaultyAWS) -> None:
    code = "AWS.SimpleQueueService.QueueDeletedRecently"  # for a minute SQS makes no queue of that name
    faults.rule(matches=lambda request: request.operation == "CreateQueue", status=400, code=code)
    queue = f"jobs-{new_cid()[:12]}"
    with pytest.raises(Unavailable) as caught:
        await bus.publish_message(MessageDestination(queue=queue), message())
    assert caught.value.resource == queue


async def test_queue_given_by_its_arn_is_refused_and_none_is_made(bus: BusOfTests, faults: FaultyAWS) -> None:
    faults.requests.clear()
    with pytest.raises(Unsupported, match="name or URL"):
        await bus.publish_message(MessageDestination(queue="arn:aws:sqs:eu-north-1:000000000000:jobs"), message())
    assert faults.requests == []


async def test_slow_search_for_a_queue_does_not_hold_up_others(bus: BusOfTests, faults: FaultyAWS) -> None:
    known, slow = f"jobs-{new_cid()[:12]}", f"slow-{new_cid()[:12]}"
    await bus.publish_message(MessageDestination(queue=known), message())
    held = faults.rule(matches=lambda request: slow.encode() in request.body, hold=threading.Event())
    waiting = asyncio.ensure_future(bus.publish_message(MessageDestination(queue=slow), message()))
    while not held.seen:
        await asyncio.sleep(0.01)
    async with asyncio.timeout(120):
        await bus.publish_message(MessageDestination(queue=known), message())
    assert held.hold is not None
    held.hold.set()
    assert await waiting


# --- FIFO ---


async def test_order_and_identity_are_sent_to_fifo_topics(faulty_aws: AWSConfiguration, faults: FaultyAWS) -> None:
    bus = BusOfTests(aws_kit.environment(faulty_aws), {"posts": make_topic(faulty_aws, fifo=True)})
    try:
        first = await bus.publish_message(POSTS, message(), ordering_key="a-key")
        second = await bus.publish_message(POSTS, message())
        await bus.publish_message(POSTS, message(), ordering_key="ein Schlüssel " * 20)
    finally:
        await bus.close()
    keyed, free, long = publishes(faults)
    assert (keyed["MessageGroupId"], keyed["MessageDeduplicationId"]) == (["a-key"], [first])
    assert (free["MessageGroupId"], free["MessageDeduplicationId"]) == ([second], [second])
    assert len(long["MessageGroupId"][0]) == 64


async def test_key_for_a_standard_topic_is_unsupported_before_anything_is_sent(
    bus: BusOfTests, faults: FaultyAWS
) -> None:
    with pytest.raises(Unsupported):
        await bus.publish_message(POSTS, message(), ordering_key="a-key")
    assert publishes(faults) == []


async def test_order_is_kept_by_one_request_at_a_time(faulty_aws: AWSConfiguration, faults: FaultyAWS) -> None:
    bus = BusOfTests(aws_kit.environment(faulty_aws), {"posts": make_topic(faulty_aws, fifo=True)})
    held = faults.rule(matches=is_publishing, hold=threading.Event(), times=1)
    try:
        sent = [
            asyncio.ensure_future(bus.publish_message(POSTS, message(number), ordering_key="key"))
            for number in range(25)
        ]
        while not held.seen:
            await asyncio.sleep(0.01)
        assert len(publishes(faults)) == 1
        assert held.hold is not None
        held.hold.set()
        await asyncio.gather(*sent)
    finally:
        await bus.close()
    numbers = [json.loads(text)["data"]["number"] for asked in publishes(faults) for text in texts(asked)]
    assert numbers == list(range(25))


# --- dead letters ---


@pytest.mark.parametrize("what", ["purge", "replay"])
async def test_dead_letter_that_sqs_does_not_delete_raises_unavailable(
    bus: BusOfTests, topic: str, faults: FaultyAWS, what: str
) -> None:
    wanted = Subscription(f"blog-{new_cid()[:12]}", topic, "posts")
    await bus._subscribe(wanted, create=True)
    await bus.publish_message(POSTS, message())
    (received,) = await bus._receive(wanted, 1, 20.0)
    await bus._dead_letter(received, DeadLetterReason("failed", "", "", 1))
    failed = {"Successful": [], "Failed": [{"Id": "0", "Code": "InternalError", "SenderFault": False}]}
    deleting = faults.rule(matches=lambda request: request.operation == "DeleteMessageBatch", times=1)
    deleting.status, deleting.answer = 200, json.dumps(failed).encode()
    work = bus._purge_dead_letters if what == "purge" else bus._replay_dead_letters
    with pytest.raises(Unavailable):
        await work(wanted.name, None)
    assert await work(wanted.name, None) == 1


async def test_groups_of_a_fifo_topic_do_not_wait_for_each_other(
    faulty_aws: AWSConfiguration, faults: FaultyAWS
) -> None:
    bus = BusOfTests(aws_kit.environment(faulty_aws), {"posts": make_topic(faulty_aws, fifo=True)})
    held = threading.Event()
    faults.rule(matches=lambda request: is_publishing(request) and b"slow" in request.body, hold=held, times=1)
    try:
        slow = [asyncio.create_task(bus.publish_message(POSTS, message(n), ordering_key="slow")) for n in (100, 101)]
        others = (f"key-{number}" for number in range(8))  # in eight lanes, or fewer
        done, _ = await asyncio.wait(
            {asyncio.create_task(bus.publish_message(POSTS, message(), ordering_key=key)) for key in others},
            timeout=30.0,
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert done
        assert not any(task.done() for task in slow)
        held.set()
        await asyncio.gather(*slow)
    finally:
        held.set()
        await bus.close()
    numbers = [json.loads(text)["data"]["number"] for asked in publishes(faults) for text in texts(asked)]
    assert [number for number in numbers if number >= 100] == [100, 101]
