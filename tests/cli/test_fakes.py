"""The fake values of an export: nothing of the payload is in them, and a handler would treat them alike."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from totoms.cli.fakes import Fakes
from totoms.errors import UndecodableMessage
from totoms.messages.dead_letters import DeadLetter, DeadLetterReason
from totoms.messages.message import decode_message

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def shape(value: Any) -> Any:
    """Return the names, types and lengths of a value."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value]
    if isinstance(value, str):
        return str, len(value), len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, float):
        return float, value > 0, value < 0
    if isinstance(value, int) and not isinstance(value, bool):
        return int, len(str(value)), value < 0
    return value


@settings(deadline=None, max_examples=50)
@given(JSON)
def test_shape_of_a_value_stays(value: Any) -> None:
    assert shape(Fakes().value(value)) == shape(value)


@settings(deadline=None, max_examples=50)
@given(JSON)
def test_body_that_can_be_decoded_stays_so(data: Any) -> None:
    body = json.dumps({"type": "t", "cid": "c-1", "timestamp": "2026.12.01", "id": "ann", "data": data}).encode()
    message = decode_message(Fakes().body(body))
    assert (message.type, message.cid, message.timestamp) == ("t", "c-1", "2026.12.01")
    assert shape(message.data) == shape(data)


@settings(deadline=None, max_examples=50)
@given(st.binary())
def test_body_that_cannot_be_decoded_stays_so(body: bytes) -> None:
    def fails(some: bytes) -> bool:
        try:
            decode_message(some)
        except UndecodableMessage:
            return True
        return False

    assert fails(Fakes().body(body)) == fails(body)


@pytest.mark.parametrize("text", ["Ann Smith", "+49 171 5550123", "ann.smith@corp.example", "Zoë Müller", "山田太郎"])
def test_nothing_of_a_text_is_left(text: str) -> None:
    fake = Fakes().text(text)
    assert fake != text
    letters = [(a, b) for a, b in zip(text, fake, strict=True) if a.isalpha() or a in "123456789"]
    assert sum(a == b for a, b in letters) <= len(letters) / 2


@pytest.mark.parametrize(
    "text",
    [
        "550e8400-e29b-41d4-a716-446655440000",
        "550E8400-E29B-41D4-A716-446655440000",
        "550e8400e29b41d4a716446655440000",
    ],
)
def test_uuid_stays_one_of_the_same_version(text: str) -> None:
    fake = Fakes().text(text)
    assert fake != text
    assert (UUID(fake).version, len(fake), fake.isupper()) == (UUID(text).version, len(text), text.isupper())


@pytest.mark.parametrize(
    "text",
    ["2026-11-30", "2026-11-30T23:59:58Z", "2026-11-30 23:59", "2026-11-30T23:59:58.123456+05:30"],
)
def test_time_stays_one_of_the_same_form(text: str) -> None:
    fake = Fakes().text(text)
    assert fake != text
    assert re.sub(r"\d", "9", fake) == re.sub(r"\d", "9", text)
    assert datetime.fromisoformat(fake).tzinfo == datetime.fromisoformat(text).tzinfo


def test_address_stays_one_of_a_domain_that_does_not_exist() -> None:
    fake = Fakes().text("ann.smith@mail.corp.com")
    assert re.fullmatch(r"[a-z]{3}\.[a-z]{5}@[a-z]{4}\.[a-z]{4}\.xxq", fake)


def test_scheme_of_a_url_stays() -> None:
    assert re.fullmatch(r"https://[a-z]{4}\.[a-z]{7}/[a-z]\?[a-z]=[1-9]", Fakes().text("https://corp.example/a?b=7"))


def test_equal_values_have_equal_fakes_in_one_export_and_others_in_the_next() -> None:
    fakes = Fakes()
    assert fakes.text("customer-4711-abcdef") == fakes.text("customer-4711-abcdef")
    assert fakes.text("customer-4711-abcdef") != Fakes().text("customer-4711-abcdef")


def test_dead_letter_keeps_what_totoms_set_and_the_place_of_the_failure() -> None:
    body = b'{"timestamp":"t","cid":"c","id":"ann","type":"postCreated","msg":"by ann","data":{"ann":"Ann Smith"}}'
    sent = {"messageType": "postCreated", "messageId": "m-1", "traceparent": "00-a", "customer": "Ann Smith"}
    reason = DeadLetterReason("attempts_exhausted", "ValueError", "no Ann Smith (at posts.py:7 in store)", 5)
    fake = Fakes().dead_letter(DeadLetter("1", "m-1", "blog-posts", body, sent, reason, 17.0))
    assert "Ann" not in str(fake)
    assert (fake.letter_id, fake.message_id, fake.subscription, fake.dead_since) == ("1", "m-1", "blog-posts", 17.0)
    assert fake.reason == DeadLetterReason("attempts_exhausted", "ValueError", "(at posts.py:7 in store)", 5)
    assert {name: fake.attributes[name] for name in list(sent)[:3]} == dict(list(sent.items())[:3])
    assert list(json.loads(fake.body)["data"]) == ["ann"]


def test_description_without_a_place_is_left_out() -> None:
    reason = DeadLetterReason("attempts_exhausted", "FAILED", "no Ann Smith", 5)
    assert Fakes().dead_letter(DeadLetter("1", "m", "s", b"{}", {}, reason, 0.0)).reason.description == ""
