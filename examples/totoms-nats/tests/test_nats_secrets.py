"""Secrets in NATS' key-value store, and the names of things."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.js import JetStreamContext

from totoms.errors import CorruptData, NotFound
from totoms_nats.messages.encoding import from_headers, to_headers
from totoms_nats.naming import Names, is_topic, key, token

NAMES = ["a/b", "a_b", "a-b", "a.b", "a b", ".a", "a.", "a..b", "A", "a=20b", "\u00fc", ">", "*", "/a", "a/"]


def test_secrets_with_similar_names_are_not_mixed_up(installation: Any) -> None:
    for name in NAMES:
        installation.set_secret(name, f"value of {name}".encode())

    secrets = installation.secrets()
    assert [secrets.get_secret(name) for name in NAMES] == [f"value of {name}" for name in NAMES]


def test_bucket_that_cannot_be_asked_directly_is_asked_otherwise(installation: Any) -> None:
    async def put(js: JetStreamContext) -> int:
        return await (await js.create_key_value(bucket=installation.names.secrets)).put("a", b"value")

    version = installation.do(put)
    secrets = installation.secrets()
    assert secrets.get_secret("a") == secrets.get_secret("a", version=str(version)) == "value"
    with pytest.raises(NotFound):
        secrets.get_secret("b")


def test_usual_names_are_keys_as_they_stand() -> None:
    assert [key(name) for name in ("api/key", "api-key", "api_key.v1")] == ["api/key", "api-key", "api_key.v1"]


def test_version_is_a_revision_of_that_key(installation: Any) -> None:
    first = installation.set_secret("api-key", b"old")
    other = installation.set_secret("other", b"other's")
    installation.set_secret("api-key", b"new")
    secrets = installation.secrets()

    assert secrets.get_secret("api-key") == "new"
    assert secrets.get_secret("api-key", version=str(first)) == "old"
    for version in (str(other), "99999", "0", "-1", "1.0", "latest", "\u0661", "9" * 30):
        with pytest.raises(NotFound, match="'api-key'"):
            secrets.get_secret("api-key", version=version)


def test_deleted_empty_and_missing_secrets_are_reported_by_name(installation: Any) -> None:
    secrets = installation.secrets()
    with pytest.raises(NotFound, match="'gone'"):  # not even the bucket is there
        secrets.get_secret("gone")
    installation.set_secret("gone", b"canary")
    installation.set_secret("empty", b"")

    async def delete(js: JetStreamContext) -> None:
        await (await js.key_value(installation.names.secrets)).delete("gone")

    installation.do(delete)
    with pytest.raises(NotFound, match="'gone'"):
        secrets.get_secret("gone")
    with pytest.raises(CorruptData, match="'empty'"):
        secrets.get_secret("empty")


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_names_make_different_tokens_and_keys(one: str, other: str) -> None:
    try:
        one.encode(), other.encode()
    except UnicodeEncodeError:
        return
    for made in (token, key):
        assert (made(one) == made(other)) == (one == other)
        assert is_topic(f"x.{made(one)}") or "/" in one


@given(st.dictionaries(st.from_regex(r"[a-z-]{1,20}", fullmatch=True), st.text()))
def test_attributes_come_back_from_headers(attributes: dict[str, str]) -> None:
    expected = {name: value for name, value in attributes.items() if not name.startswith("nats-")}
    headers = to_headers(attributes)
    assert all(value == value.strip() and value.isascii() and value.isprintable() for value in headers.values())
    assert from_headers(headers) == expected


def test_installations_with_other_prefixes_share_no_name() -> None:
    one, other = Names("one"), Names("other")
    for name in ("queues", "dead", "attempts", "secrets"):
        assert getattr(one, name) != getattr(other, name)
    assert one.queue_subject("a") != other.queue_subject("a")
    assert one.bucket("abc") != other.bucket("abc")
