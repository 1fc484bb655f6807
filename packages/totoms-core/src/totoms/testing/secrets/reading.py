"""The secrets contract, part reading: behaviours 47 to 49."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import pytest

from totoms.context import new_cid
from totoms.errors import AccessDenied, BackendError, CorruptData, InvalidKey, NotFound, Unsupported
from totoms.secrets.manager import SecretsManager
from totoms.testing.contract import Contract
from totoms.testing.secrets.harness import SecretsManagerHarness

VERSIONS: Final = "versions"
CACHE: Final = "cache"
_SIGNS: Final = "/_-."
_INVALID_NAMES: Final[list[Any]] = ["", "\x00", "a\nb", "a\x7f", "\x85", "\ud800", "n" * 256, None, 1, b"x"]


def new_name(suffix: str = "") -> str:
    """Return a name that no other secret has."""
    return f"kit-{new_cid()}{suffix}"


async def check_error(error: type[BackendError], name: str, use: Callable[[], Awaitable[object]]) -> BackendError:
    """Assert that `use` raises exactly this error, with the name of the secret."""
    with pytest.raises(error) as caught:
        await use()
    assert type(caught.value) is error
    assert name in str(caught.value)
    assert caught.value.resource == name
    return caught.value


def every_read(manager: SecretsManager, name: str) -> list[Callable[[], Awaitable[object]]]:
    """Return a call of every method that reads a secret; all raise the same errors."""

    async def plain() -> object:
        return manager.get_secret(name)

    async def plain_bytes() -> object:
        return manager.get_secret_bytes(name)

    async def plain_json() -> object:
        return manager.get_secret_json(name)

    return [
        lambda: manager.get_secret_async(name),
        lambda: manager.get_secret_bytes_async(name),
        lambda: manager.get_secret_json_async(name),
        lambda: manager.get_secret_json_async(name, "field"),
        plain,
        plain_bytes,
        plain_json,
    ]


class SecretsReading(Contract):
    """A secret is read by its name, or a typed error names what is wrong."""

    async def test_47_secret_is_found_by_its_name(self, harness: SecretsManagerHarness) -> None:
        """Every method returns text as it was stored."""
        name, value = new_name(), 'Grüße, 世界 🌍: "$x" \\n = # '
        await harness.set_secret(name, value.encode())
        manager = harness.manager()
        assert manager.get_secret(name) == await manager.get_secret_async(name) == value
        assert manager.get_secret_bytes(name) == await manager.get_secret_bytes_async(name) == value.encode()
        identifier = value.strip()  # whitespace around an identifier was stored by mistake
        assert await manager.topic_identifier_async(name, "logical") == identifier
        assert manager.topic_identifier(name, "logical") == identifier

    async def test_47_names_do_not_collide(self, harness: SecretsManagerHarness) -> None:
        """Names that differ only in ``/ _ - .`` are different secrets."""
        own = new_name()
        # The last ones look like escaped forms of characters that a store does not accept.
        forms = ["ab", *(f"a{sign}b" for sign in _SIGNS), *(f"a{one}b{two}c" for one in _SIGNS for two in _SIGNS)]
        forms += ["a--b", "a__b", "a-2fb", "a%2Fb", "a-2Fb", "a_2fb"]
        names = [f"{own}-{form}" for form in forms]
        for number, name in enumerate(names):
            await harness.set_secret(name, b"value %d" % number)
        manager = harness.manager()
        for number, name in enumerate(names):
            assert await manager.get_secret_async(name) == f"value {number}", name

    async def test_47_name_of_another_is_not_found(self, harness: SecretsManagerHarness) -> None:
        """A secret is not found by a similar name."""
        name = new_name("-x")
        await harness.set_secret(name, b"value")
        manager = harness.manager()
        for sign in "/_.":
            other = name[:-2] + sign + "x"
            await check_error(NotFound, other, partial(manager.get_secret_async, other))
        for other in (name[:-1], name + "x", name + "/"):
            await check_error(NotFound, other, partial(manager.get_secret_async, other))

    async def test_47_what_is_not_a_name_is_refused(self, harness: SecretsManagerHarness) -> None:
        """An invalid name or version raises InvalidKey before any request."""
        manager = harness.manager()
        async with harness.outage():
            for bad in _INVALID_NAMES:
                for use in every_read(manager, bad):
                    with pytest.raises(InvalidKey):
                        await use()
                if bad is not None:
                    with pytest.raises(InvalidKey):
                        await manager.get_secret_async("name", version=bad)

    async def test_48_missing_secret_is_not_found(self, harness: SecretsManagerHarness) -> None:
        """A missing or deleted secret raises NotFound; once created it is found."""
        manager, name = harness.manager(), new_name()
        for use in every_read(manager, name):
            await check_error(NotFound, name, use)
        await harness.set_secret(name, b"value")
        assert await manager.get_secret_async(name) == "value"
        await harness.set_secret(name, None)
        harness.advance(manager.cache_seconds)
        await check_error(NotFound, name, lambda: manager.get_secret_async(name))

    async def test_48_denied_secret_is_access_denied(self, harness: SecretsManagerHarness) -> None:
        """A secret without permission raises AccessDenied, after `cache_seconds` also if it was read before."""
        manager, name = harness.manager(), new_name()
        await harness.set_secret(name, b"value")
        assert await manager.get_secret_async(name) == "value"
        await harness.deny(name)
        for use in every_read(harness.manager(), name):
            await check_error(AccessDenied, name, use)
        harness.advance(manager.cache_seconds)
        await check_error(AccessDenied, name, lambda: manager.get_secret_async(name))

    async def test_48_empty_secret_is_reported(self, harness: SecretsManagerHarness) -> None:
        """An empty value raises CorruptData: signing with it would be unsafe."""
        name = new_name()
        try:
            await harness.set_secret(name, b"")
        except Unsupported:
            return  # the store refuses to hold it
        for use in every_read(harness.manager(), name):
            await check_error(CorruptData, name, use)

    async def test_48_binary_secret_is_bytes(self, harness: SecretsManagerHarness) -> None:
        """A binary value is returned as bytes; reading it as text raises CorruptData."""
        name, value = new_name(), bytes(range(1, 256))
        try:
            await harness.set_secret(name, value)
        except Unsupported:
            return
        manager = harness.manager()
        assert manager.get_secret_bytes(name) == await manager.get_secret_bytes_async(name) == value
        await check_error(CorruptData, name, lambda: manager.get_secret_async(name))
        await check_error(CorruptData, name, lambda: manager.get_secret_json_async(name))

    async def test_48_field_of_a_json_secret(self, harness: SecretsManagerHarness) -> None:
        """A JSON document is parsed and its fields are found; a missing field or invalid JSON raises a typed error."""
        document, text, array = new_name("json"), new_name("text"), new_name("list")
        await harness.set_secret(document, '{"user": "mé", "n": [1, null], "empty": ""}'.encode())
        await harness.set_secret(text, b"no JSON")
        await harness.set_secret(array, b"[1]")
        manager = harness.manager()
        whole = {"user": "mé", "n": [1, None], "empty": ""}
        assert manager.get_secret_json(document) == await manager.get_secret_json_async(document) == whole
        assert (
            await manager.get_secret_json_async(document, "user") == manager.get_secret_json(document, "user") == "mé"
        )
        assert await manager.get_secret_json_async(document, "empty") == ""
        assert await manager.get_secret_json_async(array) == [1]
        await check_error(NotFound, document, lambda: manager.get_secret_json_async(document, "other"))
        await check_error(CorruptData, array, lambda: manager.get_secret_json_async(array, "user"))
        await check_error(CorruptData, text, lambda: manager.get_secret_json_async(text))
        await check_error(CorruptData, text, lambda: manager.get_secret_json_async(text, "user"))

    async def test_49_version_is_pinned(self, harness: SecretsManagerHarness) -> None:
        """A pinned version keeps its value through a rotation; an unknown version raises NotFound."""
        manager, name = harness.manager(), new_name()
        first = await harness.set_secret(name, b"first")
        second = await harness.set_secret(name, b"second")
        if VERSIONS not in self.capabilities:
            for version in (first or "1", second or "2"):
                await check_error(Unsupported, name, partial(manager.get_secret_async, name, version=version))
            assert await manager.get_secret_async(name) == "second"
            return
        assert first is not None
        assert second is not None
        for _ in range(2):
            assert await manager.get_secret_async(name) == "second"  # cached from now on
            assert await manager.get_secret_async(name, version=first) == "first"
            assert manager.get_secret(name, version=second) == "second"
            harness.advance(manager.cache_seconds)
        missing = new_name()
        await harness.set_secret(missing, b"value")
        await check_error(NotFound, missing, lambda: manager.get_secret_async(missing, version=second + "0123"))

    async def test_49_latest_follows_a_rotation(self, harness: SecretsManagerHarness) -> None:
        """After a rotation the old value is returned for `cache_seconds` at most, then the new one."""
        manager, name = harness.manager(), new_name()
        assert (manager.cache_seconds > 0) == (CACHE in self.capabilities), (
            "the test class and the manager declare different caching"
        )
        await harness.set_secret(name, b"old")
        assert await manager.get_secret_async(name) == "old"
        await harness.set_secret(name, b"new")
        if CACHE in self.capabilities:
            harness.advance(manager.cache_seconds * 0.9)
            assert await manager.get_secret_async(name) == "old"
            harness.advance(manager.cache_seconds * 0.2)
        assert await manager.get_secret_async(name) == manager.get_secret(name) == "new"
        await harness.set_secret(name, b"newest")
        assert await harness.manager().get_secret_async(name) == "newest"
