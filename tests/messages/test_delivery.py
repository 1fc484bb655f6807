"""Push or pull, where the declaration leaves it out; and which topics are subscribed at all."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from support.messages.by_name import Through
from support.messages.kit import DEADLINE, Handler, MemoryBus, make_router, succeed
from totoms import (
    ConfigurationError,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    ProcessingResponse,
    ProcessingStatus,
    TotoMessage,
    TotoMessageHandler,
)
from totoms.errors import AccessDenied, BackendError, Unsupported
from totoms.logging.logger import TotoLogger
from totoms.messages.delivery import choose_delivery, pushed_to_us
from totoms.messages.driver import PULL, PUSH
from totoms.messages.message import encode_message
from totoms.messages.receiver import Received, Receiver
from totoms.messages.subscription import Backlog, Existing, Subscription
from totoms.messages.unconfirmed import UnconfirmedPushes
from totoms.messaging import Messaging

POSTS = Subscription("blog-posts", "posts-topic", "posts")
PATH = "/blog/events"
OURS = "https://blog.example/blog/events"
THEIRS = "https://shop.example/shop/events"


class Broker(MemoryBus):
    """A bus whose broker has what the test says."""

    creates_push = True

    def __init__(self, environment: Any = None, topics: Any = None) -> None:
        super().__init__(environment or SimpleNamespace(hyperscaler="memory"), topics)
        self.existing: Existing | BackendError | None = Existing()
        self.backlog: Backlog | BackendError | None = None
        self.subscribed: list[Subscription] = []
        self.refuses: BackendError | None = None

    async def _existing(self, subscription: Subscription) -> Existing | None:
        if isinstance(self.existing, BackendError):
            raise self.existing
        return self.existing

    async def _backlog(self, subscription: Subscription) -> Backlog | None:
        assert subscription.delivery == "pull"
        if isinstance(self.backlog, BackendError):
            raise self.backlog
        return self.backlog

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> Receiver:
        if self.refuses:
            raise self.refuses
        self.subscribed.append(subscription)
        return await super()._subscribe(subscription, create=create)

    async def _subscribe_push(self, subscription: Subscription, *, create: bool) -> None:
        if self.refuses:
            raise self.refuses
        self.subscribed.append(subscription)


@pytest.mark.parametrize(
    ("existing", "base_url", "path", "chosen"),
    [
        (Existing(), "", PATH, "pull"),
        (Existing(), "https://blog.example", PATH, "push"),
        (Existing(pull=True), "", PATH, "pull"),
        (Existing(pull=True), "https://blog.example", PATH, "pull"),
        (Existing(push=(OURS,)), "", PATH, "push"),
        (Existing(push=(OURS,)), "https://blog.example", PATH, "push"),
        (Existing(push=(THEIRS,)), "", PATH, "pull"),
        (Existing(push=(OURS, THEIRS)), "", PATH, "push"),
        (Existing(push=("https://other.example/blog/events",)), "https://blog.example", PATH, "push"),
        (Existing(pull=True, push=("https://other.example/blog/events",)), "https://blog.example", PATH, "pull"),
        (Existing(push=("https://blog.example/v2/blog/events",)), "", PATH, "pull"),
        (Existing(push=("https://blog.example/blog/events/",)), "", PATH, "pull"),
        (Existing(push=("https://blog.example/events",)), "https://blog.example", "/events", "push"),
    ],
)
async def test_what_exists_decides(existing: Existing, base_url: str, path: str, chosen: str) -> None:
    bus = Broker()
    bus.existing = existing
    assert (await choose_delivery(bus, POSTS, events_path=path, base_url=base_url))[0] == chosen


@pytest.mark.parametrize(
    ("existing", "base_url", "path", "said"),
    [
        (AccessDenied("Not allowed: sns:ListSubscriptionsByTopic."), "", PATH, "sns:ListSubscriptionsByTopic"),
        (Existing(pull=True, push=(OURS,)), "", PATH, "handled twice"),
        (Existing(pull=True, push=(OURS,)), "https://blog.example", PATH, "handled twice"),
        (Existing(push=(OURS, "https://blog2.example/blog/events")), "", PATH, "https://blog2.example/blog/events"),
        (Existing(push=("https://any.example/events",)), "", "/events", "https://any.example/events"),
    ],
)
async def test_what_is_not_clear_ends_the_start(existing: Any, base_url: str, path: str, said: str) -> None:
    bus = Broker()
    bus.existing = existing
    with pytest.raises(ConfigurationError) as raised:
        await choose_delivery(bus, POSTS, events_path=path, base_url=base_url)
    assert said in str(raised.value)
    assert "delivery=" in str(raised.value)


async def test_backend_that_makes_no_push_subscriptions_is_pulled_from_and_not_asked() -> None:
    bus = Broker()
    bus.creates_push = False  # type: ignore[misc]
    bus.existing = AccessDenied("no")
    assert await choose_delivery(bus, POSTS, events_path=PATH, base_url="https://blog.example") == ("pull", None)


async def test_backend_that_cannot_pull_is_pushed_to() -> None:
    bus = Broker()
    bus.capabilities = frozenset({PUSH})  # type: ignore[misc]
    assert (await choose_delivery(bus, POSTS, events_path=PATH, base_url=""))[0] == "push"
    bus.capabilities = frozenset({PUSH, PULL})  # type: ignore[misc]
    assert (await choose_delivery(bus, POSTS, events_path=PATH, base_url=""))[0] == "pull"


def test_prefix_of_the_public_address_belongs_to_the_path() -> None:
    url = "https://gate.example/prefix/blog/events"
    assert pushed_to_us([url, OURS], PATH, "https://gate.example/prefix") == [url]


# --- topics and handlers ---


class Created(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "created"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        return ProcessingResponse(ProcessingStatus.SUCCESS)


class AlsoCreated(Created): ...


def declared(*handlers: MessageBusHandlerConfig, silent: Sequence[str] = (), **more: Any) -> MessageBusConfig:
    topics = [
        MessageBusTopicConfig(logical_name=name, secret=name, subscribe=name not in silent)
        for name in ("posts", "orders", "audit")
    ]
    return MessageBusConfig(topics=topics, message_handlers=list(handlers), **more)


@pytest.mark.parametrize(
    ("topic", "silent", "heard"),
    [
        (None, (), {"posts", "orders", "audit"}),
        (None, ("audit",), {"posts", "orders"}),
        ("posts", (), {"posts"}),
        (["posts", "orders"], ("audit",), {"posts", "orders"}),
    ],
)
def test_topics_that_a_handler_hears_are_subscribed(topic: Any, silent: Sequence[str], heard: set[str]) -> None:
    assert declared(MessageBusHandlerConfig(handler_class=Created, topic=topic), silent=silent).heard == heard
    assert declared().heard == set()


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("pots", "names the undeclared topic 'pots': declared are 'posts'"),
        ("audit", "subscribe=False"),
        (["posts", "audit"], "subscribe=False"),
    ],
)
def test_handler_of_an_unknown_or_unsubscribed_topic_is_refused(topic: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        declared(MessageBusHandlerConfig(handler_class=Created, topic=topic), silent=["audit"])


@pytest.mark.parametrize("topic", ["", [], ["posts", ""]])
def test_empty_topic_of_a_handler_is_refused(topic: Any) -> None:
    with pytest.raises(ConfigurationError, match="topic"):
        MessageBusHandlerConfig(handler_class=Created, topic=topic)


async def test_handler_that_names_the_topic_goes_before_one_that_hears_all() -> None:
    every, named = Handler(succeed), Handler(succeed)
    router = make_router(every, named, topics=[[], ["orders"]], unhandled=["audit"])
    body = b'{"timestamp": "t", "cid": "c", "id": "1", "type": "postCreated", "msg": "", "data": {}}'
    for logical in ("posts", "orders", "audit"):
        outcome = await router.handle(Received(body, "m", 1, Subscription(f"blog-{logical}", logical, logical)))
        assert outcome.ignored == (logical == "audit")
    assert (len(every.seen), len(named.seen)) == (1, 1)


def test_two_handlers_of_one_type_and_topic_are_refused() -> None:
    make_router(Handler(succeed), Handler(succeed), topics=[["posts"], ["orders"]])
    with pytest.raises(ConfigurationError, match="of topic 'posts'"):
        make_router(Handler(succeed), Handler(succeed), topics=[["posts"], ["orders", "posts"]])


# --- what a start does ---


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


async def messaging(
    bus: Broker, handler: MessageBusHandlerConfig | None = None, base_url: str = "", **more: Any
) -> Messaging:
    from totoms.messages.push.endpoint import PushEndpoint

    config = declared(handler or MessageBusHandlerConfig(handler_class=Created, topic="posts"), **more)
    logger = TotoLogger("blog")
    router = make_router()
    subscriptions = {
        topic.logical_name: Subscription(
            f"blog-{topic.logical_name}",
            topic.secret,
            topic.logical_name,
            config.delivery or "pull",
            f"{base_url}{PATH}" if base_url else None,
            dead_letters=config.dead_letters,
        )
        for topic in config.topics
    }
    push = PushEndpoint(bus, router, max_concurrency=1, url=None, logger=logger)
    return Messaging(
        bus,
        router,
        subscriptions,
        declared=config,
        push=push,
        unconfirmed=UnconfirmedPushes(bus, PATH, base_url, logger),
        logger=logger,
    )


def lines(log: pytest.LogCaptureFixture, level: int) -> str:
    return "\n".join(record.getMessage() for record in log.records if record.levelno == level)


async def test_topic_that_is_only_published_to_gets_no_subscription(log: pytest.LogCaptureFixture) -> None:
    bus = Broker()
    service = await messaging(bus)
    await service.start()
    await service.stop_receiving(0)
    await service.close()
    assert [one.logical_name for one in bus.subscribed] == ["posts"]


@pytest.mark.parametrize(
    ("backlog", "waiting"), [(Backlog(7, 60.0), " with 7 messages waiting"), (None, ""), (AccessDenied("no"), "")]
)
async def test_subscription_of_a_topic_that_is_no_longer_heard_is_reported_with_its_backlog(
    backlog: Backlog | BackendError | None, waiting: str, log: pytest.LogCaptureFixture
) -> None:
    bus = Broker()
    bus.existing, bus.backlog = Existing(pull=True, drain="delete-it"), backlog
    service = await messaging(bus)
    await service.start()
    assert service._warning is not None
    await service._warning
    await service.stop_receiving(0)
    await service.close()
    warning = f"'blog-orders' exists{waiting}, but no handler takes messages of 'orders'"
    assert warning in lines(log, logging.WARNING)
    assert "delete-it" in lines(log, logging.WARNING)


async def test_push_subscription_made_by_hand_is_used_as_it_is(log: pytest.LogCaptureFixture) -> None:
    bus = Broker()
    bus.existing = Existing(push=(OURS,))
    service = await messaging(bus)
    await service.start()
    assert bus.subscribed == []
    assert service.unconfirmed.topics == []
    assert f"pushed to {OURS}" in lines(log, logging.INFO)
    await service.close()


async def test_place_of_dead_letters_of_a_hand_made_push_subscription_is_logged(log: pytest.LogCaptureFixture) -> None:
    bus = Broker()
    bus.existing = Existing(push=(THEIRS, OURS), dead_letters=("the queue 'other'", "the queue 'push-posts-dead'"))
    service = await messaging(bus)
    await service.start()
    await service.close()
    assert f"pushed to {OURS}" in lines(log, logging.WARNING)
    assert "Its dead letters go to the queue 'push-posts-dead'." in lines(log, logging.WARNING)
    log.clear()
    bus.refuses = AccessDenied("SNS says no.")
    service = await messaging(bus, base_url="https://blog.example", delivery="push")
    await service.start()
    await service.close()
    assert "SNS says no. Its dead letters go to the queue 'push-posts-dead'." in lines(log, logging.WARNING)


@pytest.mark.parametrize("refusal", [AccessDenied("SNS says no"), Unsupported("https only")])
async def test_refused_subscription_is_a_warning_where_one_was_made_by_hand(
    refusal: BackendError, log: pytest.LogCaptureFixture
) -> None:
    bus = Broker()
    bus.existing, bus.refuses = Existing(push=(OURS,)), refusal
    service = await messaging(bus, base_url="https://blog.example", delivery="push")
    await service.start()
    await service.close()
    assert f"Using the existing push subscription of 'posts' to {OURS}" in lines(log, logging.WARNING)
    bus = Broker()
    bus.refuses = refusal
    with pytest.raises(type(refusal)):
        await (await messaging(bus, base_url="https://blog.example", delivery="push")).start()


async def test_pull_subscription_that_is_left_behind_is_an_error_with_the_command_that_ends_it(
    log: pytest.LogCaptureFixture,
) -> None:
    bus = Broker()
    bus.existing = Existing(pull=True, push=(OURS,), drain="delete-queue blog-posts")
    bus.backlog = Backlog(3)
    service = await messaging(bus, base_url="https://blog.example", delivery="push")
    await service.start()
    await service.close()
    assert "'blog-posts' of 'posts' still exists with 3 messages waiting" in lines(log, logging.ERROR)
    assert "delete-queue blog-posts" in lines(log, logging.ERROR)


async def test_push_subscription_next_to_an_explicit_pull_is_an_error(log: pytest.LogCaptureFixture) -> None:
    bus = Broker()
    bus.existing = Existing(pull=True, push=(OURS,))
    service = await messaging(bus, delivery="pull")
    await service.start()
    await service.stop_receiving(0)
    await service.close()
    assert "handled twice" in lines(log, logging.ERROR)


# --- waiting for the first push ---


async def test_topic_that_nothing_pushes_is_an_error_each_minute_until_it_is_pushed(
    log: pytest.LogCaptureFixture,
) -> None:
    bus, pauses, go = Broker(), [], asyncio.Semaphore(0)

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await go.acquire()

    unconfirmed = UnconfirmedPushes(bus, PATH, "", TotoLogger("blog"), pause)
    unconfirmed.add(POSTS, Existing())
    async with asyncio.timeout(DEADLINE):
        for number in (1, 2, 3):
            while len(pauses) < number:
                await asyncio.sleep(0)
            assert lines(log, logging.ERROR).count("No messages of 'posts' can arrive") == number
            assert unconfirmed.topics == ["posts"]
            if number == 2:
                bus.existing = AccessDenied("no")  # may not look any more: it still goes on
            go.release()
    assert set(pauses) == {60.0}
    unconfirmed.confirm("posts")
    assert unconfirmed.topics == []
    await unconfirmed.close()


async def test_subscription_that_appears_later_ends_the_waiting() -> None:
    bus, go = Broker(), asyncio.Semaphore(0)

    async def pause(_seconds: float) -> None:
        await go.acquire()

    unconfirmed = UnconfirmedPushes(bus, PATH, "", TotoLogger("blog"), pause)
    unconfirmed.add(POSTS, Existing())
    bus.existing = Existing(push=(OURS,))
    go.release()
    async with asyncio.timeout(DEADLINE):
        while unconfirmed.topics:
            await asyncio.sleep(0)
    await unconfirmed.close()


async def test_topic_that_is_added_after_all_others_were_seen_is_reported_as_well(
    log: pytest.LogCaptureFixture,
) -> None:
    unconfirmed = UnconfirmedPushes(Broker(), PATH, "", TotoLogger("blog"), lambda _seconds: asyncio.sleep(0))
    unconfirmed.add(POSTS, Existing())
    unconfirmed.confirm("posts")
    async with asyncio.timeout(DEADLINE):
        while unconfirmed._task is None or not unconfirmed._task.done():
            await asyncio.sleep(0)
        unconfirmed.add(Subscription("blog-orders", "orders-topic", "orders"), Existing())
        while "No messages of 'orders' can arrive" not in lines(log, logging.ERROR):
            await asyncio.sleep(0)
    await unconfirmed.close()


async def test_subscribed_is_logged_only_if_the_broker_confirms_it(log: pytest.LogCaptureFixture) -> None:
    unconfirmed = UnconfirmedPushes(Broker(), PATH, "", TotoLogger("blog"))
    unconfirmed.add(POSTS, Existing())
    await unconfirmed.close()
    assert "Subscribed" not in log.text
    unconfirmed.add(POSTS, Existing(push=(OURS,)))
    await unconfirmed.close()
    assert "Subscribed blog-posts to posts-topic (push)." in log.text


async def test_quiet_topic_of_a_broker_that_cannot_say_is_not_an_error(log: pytest.LogCaptureFixture) -> None:
    unconfirmed = UnconfirmedPushes(Broker(), PATH, "", TotoLogger("blog"))
    unconfirmed.add(POSTS, None)
    assert unconfirmed.topics == ["posts"]
    assert lines(log, logging.ERROR) == ""
    assert "Awaiting the first push of 'posts'" in lines(log, logging.WARNING)
    unconfirmed.confirm("posts")
    assert unconfirmed.topics == []
    await unconfirmed.close()


@pytest.mark.parametrize(("timeout", "warned"), [(15.0, False), (15.1, True)])
async def test_handlers_that_take_longer_than_the_broker_waits_are_warned_of(
    log: pytest.LogCaptureFixture, timeout: float, warned: bool
) -> None:
    class Impatient(Broker):
        push_patience = 15.0

    service = await messaging(Impatient(), base_url="https://blog.example", delivery="push", handler_timeout=timeout)
    await service.start()
    await service.close()
    assert ("the broker waits 15 s for an answer" in lines(log, logging.WARNING)) is warned


async def test_what_a_push_subscription_lacks_is_a_warning_with_the_command(log: pytest.LogCaptureFixture) -> None:
    bus = Broker()
    bus.existing = Existing(push=(OURS, THEIRS))
    asked: list[str] = []

    async def lacks(_subscription: Subscription, address: str) -> str:
        asked.append(address)
        return "has no redrive policy: mend it"

    vars(bus).update(_push_lacks=lacks)
    service = await messaging(bus)
    await service.start()
    await service.close()
    assert asked == [OURS]
    assert f"The push subscription of 'posts' to {OURS} has no redrive policy: mend it" in lines(log, logging.WARNING)


@pytest.mark.parametrize("dead_letters", [True, False])
async def test_push_subscription_without_a_dead_letter_store_is_refused(dead_letters: bool) -> None:
    class Denying(Broker):
        async def _subscribe_push(self, subscription: Subscription, *, create: bool) -> None:
            if subscription.dead_letters:
                raise AccessDenied("The queue 'blog-posts-dead' may not be made.")
            await super()._subscribe_push(subscription, create=create)

    bus = Denying()
    service = await messaging(bus, base_url="https://blog.example", delivery="push", dead_letters=dead_letters)
    if dead_letters:
        with pytest.raises(AccessDenied, match=r"'blog-posts-dead'.*dead_letters=False"):
            await service.start()
    else:
        await service.start()
        assert [one.name for one in bus.subscribed] == ["blog-posts"]
    await service.close()


async def test_undelivered_pushes_are_pulled_in_addition() -> None:
    bus = Broker()
    body = encode_message(TotoMessage(type="postCreated", id="post-1", timestamp="now", cid="c"))

    async def undelivered(subscription: Subscription) -> Receiver:
        pulled = dataclasses.replace(subscription, delivery="pull")
        bus.waiting.append(Received(body, "m-1", 1, pulled))
        return Through(bus, pulled)

    vars(bus).update(_undelivered=undelivered)
    service = await messaging(bus, base_url="https://blog.example", delivery="push")
    handler = Handler(succeed)
    service._router = make_router(handler)
    await service.start()
    async with asyncio.timeout(DEADLINE):
        while not handler.seen:
            await asyncio.sleep(0)
    await service.stop_receiving(DEADLINE)
    await service.close()


async def test_right_to_look_for_dead_letters_may_be_missing(log: pytest.LogCaptureFixture) -> None:
    bus = Broker()
    bus.existing = Existing(push=(OURS,))

    async def refused(_subscription: Subscription) -> None:
        raise AccessDenied("Not allowed: sqs:GetQueueUrl.")

    vars(bus).update(_undelivered=refused)
    service = await messaging(bus)
    await service.start()
    await service.close()
    assert "that the broker could not push: Not allowed: sqs:GetQueueUrl." in lines(log, logging.WARNING)
