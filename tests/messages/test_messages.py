"""The wire form: unchanged through encoding and decoding, or refused with a typed error."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_serializer

from totoms import InvalidArgument, MessageDestination, NotSerializable, ProcessingStatus, TotoMessage
from totoms.context import current_cid
from totoms.errors import UndecodableMessage
from totoms.messages.message import ForeignMessage, decode_message, encode_message

texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner),
    max_leaves=12,
)


@given(json_values)
def test_any_json_data_comes_back_unchanged(data: Any) -> None:
    message = TotoMessage("2026.01.01", "c", "i", "t", "m", data)
    assert decode_message(encode_message(message)) == message


@pytest.mark.parametrize(
    "data", [2**64, -(2**70), 10**400, 1e308, 5e-324, {"a": [2**63, 2**63 - 1]}, "\x00", "😀", {}, None]
)
def test_numbers_and_text_at_the_edges_come_back_unchanged(data: Any) -> None:
    assert decode_message(encode_message(TotoMessage(type="t", data=data))).data == data


def test_wire_form_has_these_keys_in_this_order_and_no_other() -> None:
    body = encode_message(TotoMessage("2026.01.01 10:00:00", "c", "i", "t", "m", {"a": 1}))
    assert body == b'{"timestamp":"2026.01.01 10:00:00","cid":"c","id":"i","type":"t","msg":"m","data":{"a":1}}'
    slow = encode_message(TotoMessage("2026.01.01 10:00:00", "c", "i", "t", "m", {"a": None}))
    assert list(json.loads(slow)) == ["timestamp", "cid", "id", "type", "msg", "data"]


def cyclic() -> Any:
    data: dict[str, Any] = {}
    data["self"] = data
    return data


def deep() -> Any:
    data: Any = []
    for _ in range(100_000):
        data = [data]
    return data


@pytest.mark.parametrize(
    "data",
    [
        math.nan,
        [math.inf],
        {"a": -math.inf},
        "\ud800",
        {"\udfff": 1},
        object(),
        {1, 2}.__iter__(),
        b"bytes",
        cyclic(),
        deep(),
    ],
    ids=["nan", "inf", "-inf", "surrogate", "surrogate key", "object", "iterator", "bytes", "cycle", "depth"],
)
def test_data_that_json_cannot_hold_is_refused_before_anything_is_sent(data: Any) -> None:
    with pytest.raises(NotSerializable, match="'t' cannot be written as JSON: it "):
        encode_message(TotoMessage(type="t", data=data))


class Colour(Enum):
    RED = "red"
    COSTLY = Decimal("1.50")


class Broken(Enum):
    NAN = math.nan


class Post(BaseModel):
    slug: str = Field(default="s", serialization_alias="postSlug")
    price: Decimal = Decimal("19.90")
    rating: float = 0.5
    tags: set[str] = {"a"}
    inner: Any = None


@dataclass
class Money:
    amount: Decimal
    currency: Any = "EUR"


UTC_TIME = datetime(2025, 1, 31, 10, 0, 0, 5, tzinfo=UTC)
WRITTEN: dict[str, tuple[Any, str]] = {
    "model": (Post(), '{"postSlug":"s","price":"19.90","rating":0.5,"tags":["a"],"inner":null}'),
    "model in a list": (
        [Post(inner=Money(Decimal(1)))],
        '[{"postSlug":"s","price":"19.90","rating":0.5,"tags":["a"],"inner":{"amount":"1","currency":"EUR"}}]',
    ),
    "dataclass": (Money(Decimal("0.10")), '{"amount":"0.10","currency":"EUR"}'),
    "dataclass with None": (Money(Decimal("0.10"), None), '{"amount":"0.10","currency":null}'),
    "model in a dataclass": (
        Money(Decimal(1), Post(tags=set())),
        '{"amount":"1","currency":{"postSlug":"s","price":"19.90","rating":0.5,"tags":[],"inner":null}}',
    ),
    "decimal": ({"price": Decimal("19.90")}, '{"price":"19.90"}'),
    "uuid": ([UUID(int=1)], '["00000000-0000-0000-0000-000000000001"]'),
    "enum": ([Colour.RED, ProcessingStatus.FAILED, HTTPStatus.OK, Colour.COSTLY], '["red","failed",200,"1.50"]'),
    "times": ([UTC_TIME, UTC_TIME.date(), None], '["2025-01-31T10:00:00.000005+00:00","2025-01-31",null]'),
    "times without null": ([UTC_TIME, UTC_TIME.date()], '["2025-01-31T10:00:00.000005+00:00","2025-01-31"]'),
    "keys": (
        {1: 1, UUID(int=2): 2, Colour.RED: 3, UTC_TIME.date(): 4},
        '{"1":1,"00000000-0000-0000-0000-000000000002":2,"red":3,"2025-01-31":4}',
    ),
    "mapping": (MappingProxyType({"a": None}), '{"a":null}'),
    "large integer beside a dataclass": (
        [2**70, Money(Decimal(1), "null")],
        '[1180591620717411303424,{"amount":"1","currency":"null"}]',
    ),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_models_dataclasses_and_values_of_the_standard_library_are_written(case: str) -> None:
    data, written = WRITTEN[case]
    body = encode_message(TotoMessage("", "", "", "t", "", data)).decode()
    assert body == f'{{"timestamp":"","cid":"","id":"","type":"t","msg":"","data":{written}}}'


@pytest.mark.parametrize(
    "data",
    [
        Post(rating=math.nan),
        [Post(inner={"a": [math.inf]})],
        Post(inner=Post(rating=-math.inf)),
        Money(Decimal("NaN")),
        Money(Decimal(1), math.nan),
        Money(Decimal(1), Post(rating=math.nan)),
        Decimal("Infinity"),
        Broken.NAN,
        {math.nan: 1},
        Post.model_construct(price=Decimal("sNaN")),
    ],
    ids=repr,
)
def test_nan_and_infinity_are_refused_wherever_they_are_nested(data: Any) -> None:
    with pytest.raises(NotSerializable):
        encode_message(TotoMessage(type="t", data=data))


def test_error_of_what_cannot_be_written_names_the_class_and_never_the_value() -> None:
    class Odd(BaseModel):
        name: str

        @field_serializer("name")
        def _fail(self, value: str) -> str:
            raise KeyError(value)

    for data in ({"k": b"canary"}, {("canary",): 1}, Odd(name="canary"), Post.model_construct(tags=object())):
        with pytest.raises(NotSerializable) as caught:
            encode_message(TotoMessage(type="t", data=data))
        assert "canary" not in str(caught.value)
        assert isinstance(caught.value, TypeError)
        assert caught.value.status == 500


@pytest.mark.parametrize(
    ("value", "written"), [(42, "42"), (None, "null"), (1.5, "1.5"), ({"a": [1]}, '{"a":[1]}'), (True, "true")]
)
@pytest.mark.parametrize("field", ["timestamp", "cid", "id", "msg"])
def test_field_that_is_not_text_is_published_as_given(field: str, value: Any, written: str) -> None:
    body = encode_message(TotoMessage(type="t", **{field: value}))
    assert f'"{field}":{written},'.encode() in body


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("42", "42"),
        ("null", ""),
        ("1.5", "1.5"),
        ("-0", "0"),
        ("true", "true"),
        ('{"a": [1, null, "é"]}', '{"a":[1,null,"é"]}'),
        ("[ 1, 2 ]", "[1,2]"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ],
)
@pytest.mark.parametrize("field", ["timestamp", "cid", "id", "msg", "type"])
def test_field_that_is_not_text_is_received_as_text(field: str, value: str, text: str) -> None:
    body = f'{{"type":"t","{field}":{value}}}' if field != "type" else f'{{"type":{value}}}'
    message = decode_message(body.encode(), type_attribute="beside")
    assert getattr(message, field) == (text or ("beside" if field == "type" else ""))


@pytest.mark.parametrize("body", [b"{}", b'{"type":null}', b'{"type":""}', b'{"detail-type":"order","data":{}}'])
def test_type_may_be_in_the_attributes(body: bytes) -> None:
    assert decode_message(body, type_attribute="beside").type == "beside"
    with pytest.raises(ForeignMessage):
        decode_message(body)
    assert decode_message(b'{"type":"own"}', type_attribute="beside").type == "own"


@pytest.mark.parametrize("value", ["1e400", "-1e999", '"\\ud800"', '{"\\udc00":1}', '"\xed\xa0\x80"'], ids=ascii)
@pytest.mark.parametrize("beside", ["", '"n":12345678901234567890,'], ids=["", "beside a long integer"])
def test_numbers_and_text_that_nothing_holds_are_refused_on_either_way(value: str, beside: str) -> None:
    body = f'{{"type":"t",{beside}"data":{value}}}'.encode("latin-1")
    with pytest.raises(UndecodableMessage):
        decode_message(body)


def test_absent_and_null_fields_are_tolerated_and_unknown_ones_skipped() -> None:
    message = decode_message(b'{"type":"t","msg":null,"data":null,"more":1}')
    assert (message.timestamp, message.cid, message.id, message.msg, message.data) == ("", "", "", "", None)
    assert decode_message(b'{"type":"t"}').data == {}


@pytest.mark.parametrize("wrong", ["", None, 3])
def test_message_without_a_type_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match="type"):
        TotoMessage(type=wrong)


def test_fields_left_out_have_sensible_defaults() -> None:
    token = current_cid.set("of-the-request")
    try:
        message = TotoMessage(type="t")
    finally:
        current_cid.reset(token)
    assert message.cid == "of-the-request"
    assert message.timestamp
    assert message.id
    assert message.data == {}


@pytest.mark.parametrize("arguments", [{}, {"topic": "a", "queue": "b"}, {"topic": ""}])
def test_destination_names_exactly_one_of_topic_and_queue(arguments: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        MessageDestination(**arguments)
