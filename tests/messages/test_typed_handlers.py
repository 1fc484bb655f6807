"""Handlers as classes with a typed event, and as functions."""

from __future__ import annotations

import threading
from typing import Any, Generic, TypeVar

import pytest

from totoms import (
    ConfigurationError,
    ExecutionContext,
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
)
from totoms.messages.handler import event_of
from totoms.messages.outcome import Action
from totoms.testing import TestMicroservice

POSTS = MessageDestination(topic="posts")


class PostCreated(TotoEvent, type="postCreated"):
    slug: str


class BlogConfig(TotoControllerConfig):
    greeting = "hello"


def service(*handlers: Any, **topic: Any) -> TestMicroservice:
    return TestMicroservice(
        TotoMicroserviceConfiguration(
            service_name="blog",
            custom_config=BlogConfig,
            message_bus_configuration=MessageBusConfig(
                topics=[MessageBusTopicConfig(logical_name="posts", secret="posts-topic", **topic)],
                message_handlers=[
                    MessageBusHandlerConfig(handler_class=one)
                    if isinstance(one, type)
                    else MessageBusHandlerConfig(handler=one)
                    for one in handlers
                ],
            ),
        )
    )


async def test_function_gets_the_event_and_the_context_of_the_message() -> None:
    seen: list[Any] = []

    @toto_handler
    async def keep(message: TotoMessage[PostCreated], exec_context: ExecutionContext[BlogConfig]) -> None:
        seen.append((message.data, exec_context))
        await exec_context.message_bus.publish_message(POSTS, TotoMessage(type="digestChanged"))
        await exec_context.get_storage("blog-files").upload_bytes_async(message.data.slug.encode(), "digest.txt")

    async with service(keep) as blog:
        handled = await blog.deliver(PostCreated(slug="a"))
        assert handled.succeeded
        ((event, context),) = seen
        assert event == PostCreated(slug="a")
        assert handled.message is not None
        assert context.cid == handled.message.cid == blog.published[0].cid
        assert context.config.greeting == "hello"
        assert context.environment is blog.environment
        assert context.logger is blog.microservice.logger
        assert await blog.files("blog-files").get_file_content_async("digest.txt") == "a"


async def test_function_without_a_context_and_the_published_event_are_typed() -> None:
    seen: list[PostCreated] = []

    @toto_handler
    async def keep(message: TotoMessage[PostCreated]) -> None:
        seen.append(message.data)

    async with service(keep) as blog:
        await blog.microservice.message_bus.publish_message(POSTS, PostCreated(slug="a"))
        await blog.settled()
        assert seen == [PostCreated(slug="a")]
        assert blog.published[0].data == PostCreated(slug="a")
        assert blog.published[0].attributes["schemaVersion"] == "1"


async def test_plain_function_runs_in_a_thread_with_the_correlation_id_of_the_message() -> None:
    seen: list[Any] = []

    @toto_handler
    def keep(message: TotoMessage[PostCreated], exec_context: ExecutionContext) -> None:
        seen.append((threading.current_thread().name, exec_context.cid == message.cid))

    async with service(keep) as blog:
        assert (await blog.deliver(PostCreated(slug="a"))).succeeded
    ((thread, same),) = seen
    assert thread != threading.main_thread().name
    assert same


async def test_untyped_function_names_its_type_and_gets_the_data_as_it_is() -> None:
    seen: list[Any] = []

    @toto_handler(type="postCreated")
    async def keep(message: TotoMessage) -> None:
        seen.append(message.data)

    async with service(keep) as blog:
        assert (await blog.deliver(TotoMessage(type="postCreated", data=[1]))).succeeded
    assert seen == [[1]]


async def test_decorated_function_is_still_the_function() -> None:
    async def plain(message: TotoMessage[PostCreated]) -> str:
        return message.data.slug

    assert toto_handler(plain) is plain
    assert await plain(TotoMessage(data=PostCreated(slug="a"))) == "a"


class Typed(TotoMessageHandler[PostCreated, BlogConfig]):
    async def process_message(self, message: TotoMessage[PostCreated]) -> ProcessingResponse:
        return ProcessingResponse(ProcessingStatus.SUCCESS, f"{self.config.greeting} {message.data.slug}")


async def test_class_needs_no_type_and_its_config_is_typed() -> None:
    async with service(Typed) as blog:
        handled = await blog.deliver(PostCreated(slug="a"))
    assert handled.response is not None
    assert handled.response.response_payload == "hello a"


DataT = TypeVar("DataT")


class Base(TotoMessageHandler[DataT, BlogConfig], Generic[DataT]):
    pass


class OfABase(Base[PostCreated]):
    async def process_message(self, message: TotoMessage[PostCreated]) -> None: ...


class OfThat(OfABase):
    pass


class Untyped(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "postCreated"

    async def process_message(self, message: TotoMessage) -> None: ...


@pytest.mark.parametrize(
    ("kind", "event"),
    [(Typed, PostCreated), (OfABase, PostCreated), (OfThat, PostCreated), (Untyped, None), (Base, None), (dict, None)],
)
def test_event_of_a_class_is_found_through_its_bases(kind: type[Any], event: type[TotoEvent] | None) -> None:
    assert event_of(kind) is event


async def test_class_that_names_its_event_and_another_type_is_refused_at_start() -> None:
    class Two(TotoMessageHandler[PostCreated]):
        def get_handled_message_type(self) -> str:
            return "postDeleted"

        async def process_message(self, message: TotoMessage[PostCreated]) -> None: ...

    with pytest.raises(ConfigurationError) as raised:
        async with service(Two):
            pass
    assert str(raised.value) == (
        "Two handles PostCreated, whose type is 'postCreated', but its get_handled_message_type() returns "
        "'postDeleted'."
    )


# --- what None and other results mean ---


def returning(result: Any, annotation: Any) -> type[TotoMessageHandler]:
    class Returns(TotoMessageHandler[PostCreated]):
        async def process_message(self, message: TotoMessage[PostCreated]) -> Any:
            return result

    Returns.process_message.__annotations__.pop("return")
    if annotation is not ...:
        Returns.process_message.__annotations__["return"] = annotation
    return Returns


@pytest.mark.parametrize(
    ("annotation", "succeeds"),
    [
        (None, True),
        ("None", True),
        (type(None), True),
        (ProcessingResponse | None, True),
        (ProcessingResponse, False),
        ("ProcessingResponse", False),
        (Any, False),
        (..., False),
        ("NoSuchName", False),
    ],
)
async def test_none_of_a_class_is_success_only_if_it_is_annotated(annotation: Any, succeeds: bool) -> None:
    async with service(returning(None, annotation)) as blog:
        assert (await blog.deliver(PostCreated(slug="a"))).succeeded is succeeds


async def test_none_of_a_function_is_success_unless_it_promises_a_response() -> None:
    @toto_handler
    async def silent(message: TotoMessage[PostCreated]):  # type: ignore[no-untyped-def]
        pass

    @toto_handler
    async def promises(message: TotoMessage[PostCreated]) -> ProcessingResponse:
        return None  # type: ignore[return-value]

    for function, succeeds in ((silent, True), (promises, False)):
        async with service(function) as blog:
            assert (await blog.deliver(PostCreated(slug="a"))).succeeded is succeeds


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"status": "success"}, "Returns returned a dict, not a ProcessingResponse"),
        ("canary-4711", "Returns returned a str, not a ProcessingResponse"),
        (
            None,
            "Returns returned None: return ProcessingResponse(status=ProcessingStatus.SUCCESS), or annotate it "
            "`-> None`",
        ),
    ],
)
async def test_wrong_result_is_one_line_of_the_log_that_says_what_to_return(
    result: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with service(returning(result, ProcessingResponse)) as blog:
        handled = await blog.deliver(PostCreated(slug="a"), attempt=5)
    assert handled.outcome.action is Action.DEAD_LETTER
    assert handled.outcome.reason is not None
    assert handled.outcome.reason.description == said
    (line,) = [record.getMessage() for record in caplog.records if "returned" in record.getMessage()]
    assert said in line
    assert "canary" not in line


# --- what is wrong with a function ---


def without_message() -> Any:
    async def handle() -> None: ...

    return handle


def out_of_order() -> Any:
    async def handle(exec_context: ExecutionContext, message: TotoMessage[PostCreated]) -> None: ...

    return handle


def with_more() -> Any:
    async def handle(message: TotoMessage[PostCreated], exec_context: ExecutionContext, limit: int = 5) -> None: ...

    return handle


def of_no_event() -> Any:
    async def handle(message: TotoMessage) -> None: ...

    return handle


def of_an_abstract_event() -> Any:
    class Abstract(TotoEvent):
        pass

    async def handle(message: TotoMessage[Abstract]) -> None: ...

    handle.__annotations__["message"] = TotoMessage[Abstract]
    return handle


def of_an_unknown_name() -> Any:
    async def handle(message: TotoMessage[Unheard]) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    return handle


_FORM = "must be the message: async def f(message: TotoMessage[PostCreated], exec_context: ExecutionContext) -> None."


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (without_message, f"The first parameter of without_message.<locals>.handle {_FORM}"),
        (out_of_order, f"The first parameter of out_of_order.<locals>.handle {_FORM}"),
        (
            with_more,
            "with_more.<locals>.handle has the parameter 'limit': it takes only the message and the ExecutionContext.",
        ),
        (
            of_no_event,
            "of_no_event.<locals>.handle names no event: write `message: TotoMessage[PostCreated]`, or "
            '@toto_handler(type="postCreated").',
        ),
        (
            of_an_abstract_event,
            "of_an_abstract_event.<locals>.handle: Abstract is abstract: declare "
            '`class Abstract(TotoEvent, type="...")`.',
        ),
        (
            of_an_unknown_name,
            "of_an_unknown_name.<locals>.handle: the annotation 'TotoMessage[Unheard]' of 'message' is unknown when "
            "the function is decorated.",
        ),
        (lambda: Untyped, "@toto_handler takes a function, not the class Untyped."),
        (lambda: 7, "@toto_handler takes a function, not an object of the class int."),
    ],
)
def test_function_that_cannot_be_a_handler_is_refused_when_it_is_decorated(make: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        toto_handler(make())
    assert str(raised.value) == said


@pytest.mark.parametrize("wrong", ["", 7])
def test_message_type_that_is_not_text_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="type must be a non-empty string"):
        toto_handler(type=wrong)(of_no_event())


def test_type_of_a_function_that_is_not_that_of_its_event_is_refused() -> None:
    async def handle(message: TotoMessage[PostCreated]) -> None: ...

    with pytest.raises(ConfigurationError, match="whose type is 'postCreated', not 'postDeleted'"):
        toto_handler(type="postDeleted")(handle)


def test_event_that_is_defined_in_a_function_is_known_there() -> None:
    class Local(TotoEvent, type="local"):
        pass

    @toto_handler
    async def handle(message: TotoMessage[Local]) -> None: ...

    MessageBusHandlerConfig(handler=handle)


async def test_two_handlers_of_one_event_are_refused_at_start() -> None:
    @toto_handler
    async def handle(message: TotoMessage[PostCreated]) -> None: ...

    with pytest.raises(ConfigurationError, match="Two handlers for message type 'postCreated'"):
        async with service(handle, Typed):
            pass
