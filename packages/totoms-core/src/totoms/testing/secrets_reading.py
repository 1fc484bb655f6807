"""The secrets contract, of what is read: behaviours 47 to 49."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from totoms.context import new_cid
from totoms.errors import AccessDenied, BackendError, CorruptData, InvalidKey, NotFound, Unsupported
from totoms.secrets import SecretsManager
from totoms.testing.contract import Contract
from totoms.testing.secrets_harness import SecretsManagerHarness

VERSIONS: Final = "versions"
CACHE: Final = "cache"
_SIGNS: Final = "/_-."
_NO_NAMES: Final[list[Any]] = ["", "\x00", "a\nb", "a\x7f", "\x85", "\ud800", "n" * 256, None, 1, b"x"]


def a_name(beside: str = "") -> str:
    """Return a secret's name that no test had before."""
    return f"kit-{new_cid()}{beside}"


async def told(error: type[BackendError], name: str, use: Callable[[], Awaitable[object]]) -> BackendError:
    """Assert that `use` raises exactly this error, and that it names the secret."""
    with pytest.raises(error) as caught:
        await use()
    assert type(caught.value) is error
    assert name in str(caught.value)
    assert caught.value.resource == name
    return caught.value


def ways(manager: SecretsManager, name: str) -> list[Callable[[], Awaitable[object]]]:
    """Return every way to read a secret, all of which tell alike what is wrong with it."""

    async def plain() -> object:
        return manager.get_secret(name)

    async def plain_bytes() -> object:
        return manager.get_secret_bytes(name)

    async def plain_json() -> object:
        return manager.get_secret_json(name)

    return [
        lambda: manager.get_secret_async(name), lambda: manager.get_secret_bytes_async(name),
        lambda: manager.get_secret_json_async(name), lambda: manager.get_secret_json_async(name, "field"),
        plain, plain_bytes, plain_json,
    ]  # fmt: skip


class SecretsReading(Contract):
    """Secrets are found under their name, or it is told what is wrong with them."""

    async def test_47_secret_is_found_by_its_name(self, harness: SecretsManagerHarness) -> None:
        """Text comes back as it was stored, by every method."""
        name, value = a_name(), 'Grüße, 世界 🌍: "$x" \\n = # '
        await harness.set_secret(name, value.encode())
        manager = harness.manager()
        assert manager.get_secret(name) == await manager.get_secret_async(name) == value
        assert manager.get_secret_bytes(name) == await manager.get_secret_bytes_async(name) == value.encode()
        assert (
            await manager.topic_identifier_async(name, "logical") == manager.topic_identifier(name, "logical") == value
        )

    async def test_47_names_do_not_collide(self, harness: SecretsManagerHarness) -> None:
        """Names that differ only in ``/ _ - .`` are secrets of their own."""
        own = a_name()
        # The last ones look like what somebody might make of a sign that the store does not know.
        forms = ["ab", *(f"a{sign}b" for sign in _SIGNS), *(f"a{one}b{two}c" for one in _SIGNS for two in _SIGNS)]
        forms += ["a--b", "a__b", "a-2fb", "a%2Fb", "a-2Fb", "a_2fb"]
        names = [f"{own}-{form}" for form in forms]
        for number, name in enumerate(names):
            await harness.set_secret(name, b"value %d" % number)
        manager = harness.manager()
        for number, name in enumerate(names):
            assert await manager.get_secret_async(name) == f"value {number}", name

    async def test_47_name_of_another_is_not_found(self, harness: SecretsManagerHarness) -> None:
        """A secret is not found under a name that is only like its own."""
        name = a_name("-x")
        await harness.set_secret(name, b"value")
        manager = harness.manager()
        for sign in "/_.":
            other = name[:-2] + sign + "x"
            await told(NotFound, other, lambda other=other: manager.get_secret_async(other))  # type: ignore[misc]
        for other in (name[:-1], name + "x", name + "/"):
            await told(NotFound, other, lambda other=other: manager.get_secret_async(other))  # type: ignore[misc]

    async def test_47_what_is_no_name_is_refused(self, harness: SecretsManagerHarness) -> None:
        """What cannot be a name, or a version, is InvalidKey before the store is asked."""
        manager = harness.manager()
        async with harness.outage():
            for bad in _NO_NAMES:
                for use in ways(manager, bad):
                    with pytest.raises(InvalidKey):
                        await use()
                if bad is not None:
                    with pytest.raises(InvalidKey):
                        await manager.get_secret_async("name", version=bad)

    async def test_48_missing_secret_is_not_found(self, harness: SecretsManagerHarness) -> None:
        """A secret that is not there, or was deleted, is NotFound; once it is there it is found."""
        manager, name = harness.manager(), a_name()
        for use in ways(manager, name):
            await told(NotFound, name, use)
        await harness.set_secret(name, b"value")
        assert await manager.get_secret_async(name) == "value"
        await harness.set_secret(name, None)
        harness.advance(manager.cache_seconds)
        await told(NotFound, name, lambda: manager.get_secret_async(name))

    async def test_48_denied_secret_is_access_denied(self, harness: SecretsManagerHarness) -> None:
        """A secret that the credentials do not allow is AccessDenied, and one that was read is not served for ever."""
        manager, name = harness.manager(), a_name()
        await harness.set_secret(name, b"value")
        assert await manager.get_secret_async(name) == "value"
        await harness.deny(name)
        for use in ways(harness.manager(), name):
            await told(AccessDenied, name, use)
        harness.advance(manager.cache_seconds)
        await told(AccessDenied, name, lambda: manager.get_secret_async(name))

    async def test_48_empty_secret_is_told(self, harness: SecretsManagerHarness) -> None:
        """An empty value is CorruptData: nobody wants to sign with it."""
        name = a_name()
        try:
            await harness.set_secret(name, b"")
        except Unsupported:
            return  # the store refuses to hold it
        for use in ways(harness.manager(), name):
            await told(CorruptData, name, use)

    async def test_48_binary_secret_is_bytes(self, harness: SecretsManagerHarness) -> None:
        """What is no text comes back as bytes, and as text it is CorruptData."""
        name, value = a_name(), bytes(range(1, 256))
        try:
            await harness.set_secret(name, value)
        except Unsupported:
            return
        manager = harness.manager()
        assert manager.get_secret_bytes(name) == await manager.get_secret_bytes_async(name) == value
        await told(CorruptData, name, lambda: manager.get_secret_async(name))
        await told(CorruptData, name, lambda: manager.get_secret_json_async(name))

    async def test_48_field_of_a_json_secret(self, harness: SecretsManagerHarness) -> None:
        """A JSON document is parsed, and a field of it is found; what is wrong with it is typed."""
        document, text, array = a_name("json"), a_name("text"), a_name("list")
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
        await told(NotFound, document, lambda: manager.get_secret_json_async(document, "other"))
        await told(CorruptData, array, lambda: manager.get_secret_json_async(array, "user"))
        await told(CorruptData, text, lambda: manager.get_secret_json_async(text))
        await told(CorruptData, text, lambda: manager.get_secret_json_async(text, "user"))

    async def test_49_version_is_pinned(self, harness: SecretsManagerHarness) -> None:
        """A pinned version stays what it is through a rotation; one that never was is NotFound."""
        manager, name = harness.manager(), a_name()
        first = await harness.set_secret(name, b"first")
        second = await harness.set_secret(name, b"second")
        if VERSIONS not in self.capabilities:
            for version in (first or "1", second or "2"):
                await told(Unsupported, name, lambda version=version: manager.get_secret_async(name, version=version))  # type: ignore[misc]
            assert await manager.get_secret_async(name) == "second"
            return
        assert first is not None
        assert second is not None
        for _ in range(2):
            assert await manager.get_secret_async(name) == "second"  # from now on remembered
            assert await manager.get_secret_async(name, version=first) == "first"
            assert manager.get_secret(name, version=second) == "second"
            harness.advance(manager.cache_seconds)
        missing = a_name()
        await harness.set_secret(missing, b"value")
        await told(NotFound, missing, lambda: manager.get_secret_async(missing, version=second + "0123"))

    async def test_49_latest_follows_a_rotation(self, harness: SecretsManagerHarness) -> None:
        """The latest version is served until `cache_seconds` have passed, then the new one."""
        manager, name = harness.manager(), a_name()
        assert (manager.cache_seconds > 0) == (CACHE in self.capabilities), "the test class declares another cache"
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
