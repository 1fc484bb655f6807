"""Events: classes with a type and a version, how they are published, and what is read from the wire."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from support.messages.kit import MemoryBus
from totoms import (
    ConfigurationError,
    InvalidArgument,
    MessageDestination,
    NotSerializable,
    TotoEvent,
    TotoMessage,
)
from totoms.messages.events import InvalidEvent, validate
from totoms.messages.message import decode_message, encode_message

POSTS = MessageDestination(topic="posts")
SECRET = "canary-4711"
T = TypeVar("T")


class PostCreated(TotoEvent, type="postCreated", version=2):
    slug: str
    title: str = Field(alias="postTitle")


class Dated(TotoEvent):
    when: datetime


class PostDated(Dated, type="postDated"):
    type: str = "a field of this name"
    version: str = "and of this"


class Changed(TotoEvent, Generic[T], type="changed", version=3):
    was: T


@pytest.fixture
def posts() -> MemoryBus:
    return MemoryBus(topics={"posts": "posts-topic"})


async def sent(bus: MemoryBus, message: TotoMessage | TotoEvent) -> dict[str, Any]:
    await bus.publish_message(POSTS, message)
    decoded = decode_message(bus.published[-1].body)
    return {"type": decoded.type, "data": decoded.data, **bus.published[-1].attributes}


async def test_event_is_the_data_of_the_message_and_its_version_an_attribute(posts: MemoryBus) -> None:
    got = await sent(posts, PostCreated(slug="a", postTitle="A"))
    assert (got["type"], got["data"]) == ("postCreated", {"slug": "a", "postTitle": "A"})
    assert (got["messageType"], got["schemaVersion"]) == ("postCreated", "2")


async def test_wire_form_of_an_event_has_the_six_keys_of_every_message() -> None:
    event = PostDated(when=datetime(2026, 1, 2, tzinfo=UTC))
    body = encode_message(TotoMessage("2026.01.02 03:04:05", "c", "i", "", "m", event))
    assert body == (
        b'{"timestamp":"2026.01.02 03:04:05","cid":"c","id":"i","type":"postDated","msg":"m","data":'
        b'{"when":"2026-01-02T00:00:00Z","type":"a field of this name","version":"and of this"}}'
    )


async def test_untyped_message_has_no_version(posts: MemoryBus) -> None:
    assert "schemaVersion" not in await sent(posts, TotoMessage(type="postCreated", data={"slug": "a"}))


async def test_parametrised_generic_has_the_type_and_version_of_its_origin(posts: MemoryBus) -> None:
    got = await sent(posts, Changed[int](was=3))
    assert (got["type"], got["schemaVersion"], got["data"]) == ("changed", "3", {"was": 3})


def test_message_takes_its_type_from_the_event_and_refuses_another() -> None:
    event = PostCreated(slug="a", postTitle="A")
    assert TotoMessage(data=event).type == "postCreated"
    assert TotoMessage(type="postCreated", data=event).type == "postCreated"
    with pytest.raises(InvalidArgument, match="A PostCreated has the type 'postCreated', not 'postDeleted'"):
        TotoMessage(type="postDeleted", data=event)


async def test_data_that_was_exchanged_for_another_event_is_refused(posts: MemoryBus) -> None:
    message: TotoMessage[Any] = TotoMessage(data=PostCreated(slug="a", postTitle="A"))
    message.data = Changed[int](was=3)
    with pytest.raises(InvalidArgument, match="A Changed"):
        await posts.publish_message(POSTS, message)
    assert posts.published == []


async def test_abstract_event_is_not_published(posts: MemoryBus) -> None:
    with pytest.raises(InvalidArgument, match="Dated is abstract: declare `class Dated"):
        await posts.publish_message(POSTS, Dated(when=datetime.now(UTC)))
    assert posts.published == []


def test_subclass_without_a_type_is_abstract_again() -> None:
    class Special(PostCreated):
        pass

    with pytest.raises(InvalidArgument, match="Special is abstract"):
        TotoMessage(data=Special(slug="a", postTitle="A"))


def test_two_classes_of_one_type_live_side_by_side() -> None:
    class Theirs(TotoEvent, type="postCreated"):
        author: str

    assert TotoMessage(data=Theirs(author="x")).type == TotoMessage(data=PostCreated(slug="a", postTitle="A")).type


class Inner(BaseModel):
    value: float


class Priced(TotoEvent, type="priced"):
    inner: Inner
    optional: str | None = None
    price: Decimal = Decimal(1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
async def test_number_that_is_not_finite_is_refused_within_models(value: float, posts: MemoryBus) -> None:
    with pytest.raises(NotSerializable, match="NaN or infinity"):
        await posts.publish_message(POSTS, Priced(inner=Inner(value=value)))
    assert posts.published == []


@pytest.mark.parametrize("text", ["NaN", "-inf", " Infinity "])
def test_text_that_pydantic_would_read_as_such_a_number_is_invalid(text: str) -> None:
    with pytest.raises(InvalidEvent, match="NaN or infinity"):
        validate(Priced, {"inner": {"value": text}})


def test_words_that_contain_nan_or_inf_are_valid() -> None:
    assert validate(Changed[str], {"was": "Nancy asked for information"}).was == "Nancy asked for information"


def test_unknown_fields_are_ignored_unless_the_class_forbids_them() -> None:
    class Strict(TotoEvent, type="strict"):
        model_config = ConfigDict(extra="forbid")

    assert validate(Changed[int], {"was": 1, "more": 2}) == Changed[int](was=1)
    with pytest.raises(InvalidEvent, match="more"):
        validate(Strict, {"more": 2})


def test_strict_models_and_bytes_read_what_they_wrote() -> None:
    class Exact(TotoEvent, type="exact"):
        model_config = ConfigDict(strict=True, ser_json_bytes="base64", val_json_bytes="base64")
        when: datetime
        picture: bytes
        tags: frozenset[str]
        price: Decimal

    event = Exact(
        when=datetime(2026, 1, 2, tzinfo=UTC), picture=b"\xff\x00", tags=frozenset({"a"}), price=Decimal("1.10")
    )
    assert validate(Exact, decode_message(encode_message(TotoMessage(data=event))).data) == event


def test_integer_over_64_bits_is_exact() -> None:
    large = 10**30
    event = Changed[int](was=large)
    assert validate(Changed[int], decode_message(encode_message(TotoMessage(data=event))).data).was == large


def test_what_is_invalid_is_named_by_path_and_never_by_value() -> None:
    class Line(BaseModel):
        amount: int

    class Ordered(TotoEvent, type="ordered"):
        lines: list[Line]
        note: str = ""

        @field_validator("note")
        @classmethod
        def _refuse(cls, value: str) -> str:
            raise ValueError(f"quotes {value}")

    with pytest.raises(InvalidEvent) as raised:
        validate(Ordered, {"lines": [{"amount": 1}, {"amount": SECRET}], "note": SECRET})
    assert str(raised.value) == "Ordered: lines.1.amount (int_parsing), note (value_error)"


@pytest.mark.parametrize("data", [None, [], "text", 7, True])
def test_data_that_is_not_an_object_is_invalid(data: Any) -> None:
    with pytest.raises(InvalidEvent, match=r"data \(model_type\)"):
        validate(Changed[int], data)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"type": ""}, "Wrong: type must be a non-empty string."),
        ({"type": " "}, "Wrong: type must be a non-empty string."),
        ({"type": 7}, "Wrong: type must be a non-empty string."),
        ({"version": 2}, "Wrong has a version, so it needs a type."),
        ({"type": "t", "version": 0}, "Wrong: version must be an integer of 1 or more."),
        ({"type": "t", "version": True}, "Wrong: version must be an integer of 1 or more."),
        ({"type": "t", "version": "2"}, "Wrong: version must be an integer of 1 or more."),
    ],
)
def test_wrong_keyword_of_a_class_is_refused(keywords: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        type(TotoEvent)("Wrong", (TotoEvent,), {"__module__": __name__}, **keywords)
    assert str(raised.value) == said
