"""The wire form: unchanged through encoding and decoding, or refused with a typed error."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totoms import MessageDestination, TotoMessage, ValidationError
from totoms.context import current_cid
from totoms.messages import decode_message, encode_message

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
    with pytest.raises(ValidationError):
        encode_message(TotoMessage(type="t", data=data))


@pytest.mark.parametrize("field", ["timestamp", "cid", "id", "msg"])
def test_field_that_is_no_text_is_refused_by_name(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        encode_message(TotoMessage(type="t", **{field: 7}))


def test_absent_and_null_fields_are_tolerated_and_unknown_ones_skipped() -> None:
    message = decode_message(b'{"type":"t","msg":null,"data":null,"more":1}')
    assert (message.timestamp, message.cid, message.id, message.msg, message.data) == ("", "", "", "", None)
    assert decode_message(b'{"type":"t"}').data == {}


@pytest.mark.parametrize("wrong", ["", None, 3])
def test_message_without_a_type_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError, match="type"):
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
    with pytest.raises(ValidationError):
        MessageDestination(**arguments)
