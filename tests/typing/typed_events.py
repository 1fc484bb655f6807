"""Read by type checkers only: events, and the handlers of them, as users write them."""

from typing import Any, Generic, TypeVar, assert_type

from totoms import (
    ExecutionContext,
    MessageBus,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    ProcessingResponse,
    ProcessingStatus,
    TotoControllerConfig,
    TotoEvent,
    TotoMessage,
    TotoMessageHandler,
    TotoMicroserviceConfiguration,
    toto_handler,
    upcast,
)
from totoms.testing import PublishedMessage, TestMicroservice

T = TypeVar("T")


class BlogConfig(TotoControllerConfig):
    api_key: str = ""


class PostCreated(TotoEvent, type="postCreated", version=2):
    slug: str
    title: str


class Changed(TotoEvent, Generic[T], type="changed"):
    was: T


@upcast(PostCreated, from_version=1)
def with_title(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "title": data["slug"]}


@toto_handler
async def add_to_digest(message: TotoMessage[PostCreated], exec_context: ExecutionContext[BlogConfig]) -> None:
    assert_type(message.data, PostCreated)
    assert_type(exec_context.config, BlogConfig)
    assert_type(exec_context.message_bus, MessageBus)


@toto_handler
def in_a_thread(message: TotoMessage[Changed[int]]) -> ProcessingResponse:
    assert_type(message.data.was, int)
    return ProcessingResponse(status=ProcessingStatus.SUCCESS)


@toto_handler(type="postDeleted")
async def untyped(message: TotoMessage, exec_context: ExecutionContext) -> None:
    assert_type(message.data, Any)


class Handler(TotoMessageHandler[PostCreated, BlogConfig]):
    async def process_message(self, message: TotoMessage[PostCreated]) -> None:
        assert_type(message.data, PostCreated)
        assert_type(self.config, BlogConfig)


class WithoutConfig(TotoMessageHandler[PostCreated]):
    async def process_message(self, message: TotoMessage[PostCreated]) -> ProcessingResponse:
        assert_type(message.data.title, str)
        assert_type(self.config, Any)
        return ProcessingResponse(status=ProcessingStatus.SUCCESS)


async def publish(bus: MessageBus) -> None:
    event = PostCreated(slug="a", title="A")
    message = TotoMessage(data=event)
    assert_type(message, TotoMessage[PostCreated])
    posts = MessageDestination(topic="posts")
    assert_type(await bus.publish_message(posts, event), str)
    await bus.publish_message(posts, message)
    await bus.publish_messages(posts, [event, message, TotoMessage(type="postDeleted")])
    await bus.publish_message(posts, {"type": "postDeleted"})  # type: ignore[arg-type]
    await bus.publish_message("posts", event)  # type: ignore[arg-type]


async def call_directly(context: ExecutionContext[BlogConfig]) -> None:
    await add_to_digest(TotoMessage(data=PostCreated(slug="a", title="A")), context)
    in_a_thread(TotoMessage(data=Changed[int](was=1)))


def configuration() -> TotoMicroserviceConfiguration:
    return TotoMicroserviceConfiguration(
        service_name="blog",
        custom_config=BlogConfig,
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="posts", secret="posts-topic", publishes=[PostCreated])],
            message_handlers=[
                MessageBusHandlerConfig(handler=add_to_digest, topic="posts"),
                MessageBusHandlerConfig(handler=in_a_thread),
                MessageBusHandlerConfig(handler=untyped),
                MessageBusHandlerConfig(handler_class=Handler, topic=["posts"]),
                MessageBusHandlerConfig(handler_class=WithoutConfig),
            ],
        ),
    )


async def deliver(blog: TestMicroservice) -> None:
    await blog.deliver(PostCreated(slug="a", title="A"), topic="posts")
    await blog.deliver(TotoMessage(data=PostCreated(slug="a", title="A")))
    assert_type(blog.published, list[PublishedMessage[Any]])
