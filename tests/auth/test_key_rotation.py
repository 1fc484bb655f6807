"""The service's own signing key is rotated while it runs: no token is lost, and a withdrawn key ends."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from support.flights import ended
from support.http.app import KEY, Log
from totoms import (
    AccessDenied,
    APIConfiguration,
    APIEndpoint,
    ConfigurationError,
    ExecutionContext,
    NotFound,
    TotoControllerConfig,
    TotoMicroserviceConfiguration,
    Unavailable,
    UserContext,
    toto_delegate,
)
from totoms.auth.authenticator import Authenticator
from totoms.auth.signing_keys import COOLDOWN, REFRESH_AFTER, SigningKeys
from totoms.auth.tokens import make_token, parse_token
from totoms.errors import TotoError, Unauthorized, Undecidable
from totoms.testing import TestMicroservice

OLD, NEW, OTHER = "the old key of at least 32 bytes ....", "the new key of at least 32 bytes ....", "x" * 40


class Store:
    """The two secrets, a clock, and how often they were read."""

    def __init__(self, current: str | None = OLD, previous: str | None = None) -> None:
        self.current, self.previous = current, previous
        self.error: TotoError | None = None
        self.reads = self.withdrawn = 0
        self.now = 1000.0
        self.hold = asyncio.Event()
        self.hold.set()
        self.keys = SigningKeys(
            current, previous, read=self._read, on_withdrawn=self._count_withdrawn, clock=lambda: self.now
        )

    async def _read(self) -> tuple[str | None, str | None]:
        self.reads += 1
        await self.hold.wait()
        if self.error is not None:
            raise self.error
        return self.current, self.previous

    def _count_withdrawn(self) -> None:
        self.withdrawn += 1

    def knows(self, key: str) -> bool:
        token = parse_token(make_token(key, "me").encode())
        return self.keys.verify(token.signed, token.signature)

    async def finds(self, key: str) -> bool:
        token = parse_token(make_token(key, "me").encode())
        return self.keys.verify(token.signed, token.signature) or await self.keys.verify_anew(
            token.signed, token.signature
        )

    async def settled(self) -> None:
        await ended(self.keys._reading)


async def test_both_keys_verify_while_one_is_rotated() -> None:
    store = Store(NEW, OLD)
    assert store.knows(NEW)
    assert store.knows(OLD)
    assert not store.knows(OTHER)


async def test_keys_are_read_again_every_five_minutes() -> None:
    store = Store(OLD)
    store.current, store.previous = NEW, OLD
    store.now += REFRESH_AFTER - 1
    assert store.knows(OLD)
    assert store.reads == 0
    store.now += 1
    assert store.knows(OLD)
    await store.settled()
    assert (store.reads, store.knows(NEW), store.knows(OLD), store.withdrawn) == (1, True, True, 0)


async def test_new_key_is_found_by_the_first_token_that_it_signed() -> None:
    store = Store(OLD)
    store.current, store.previous = NEW, OLD
    store.now += COOLDOWN
    assert await store.finds(NEW)
    assert await store.finds(OLD)
    assert store.reads == 1


async def test_forged_tokens_cause_one_read_a_minute_for_all_at_once() -> None:
    store = Store(OLD)
    assert not await store.finds(OTHER)
    assert store.reads == 0  # the keys were read a moment ago, at start
    store.now += COOLDOWN
    store.hold.clear()
    waiting = [asyncio.create_task(store.finds(OTHER)) for _ in range(100)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    store.hold.set()
    assert await asyncio.gather(*waiting) == [False] * 100
    for _ in range(100):
        assert not await store.finds(OTHER)
    assert store.reads == 1


async def test_cancelled_caller_does_not_cancel_the_read_of_the_others() -> None:
    store = Store(OLD)
    store.current = NEW
    store.now += COOLDOWN
    store.hold.clear()
    one, two = asyncio.create_task(store.finds(NEW)), asyncio.create_task(store.finds(NEW))
    await asyncio.sleep(0)
    one.cancel()
    store.hold.set()
    assert await two


async def test_withdrawn_key_is_reported_and_verifies_no_more() -> None:
    store = Store(NEW, OLD)
    store.previous = None
    store.now += REFRESH_AFTER
    store.knows(NEW)
    await store.settled()
    assert (store.withdrawn, store.knows(OLD), store.knows(NEW)) == (1, False, True)


async def test_deleted_key_verifies_no_more() -> None:
    store = Store(OLD)
    store.current = None
    store.now += COOLDOWN
    assert not await store.finds(OTHER)
    assert not store.knows(OLD)


@pytest.mark.parametrize("error", [Unavailable("away"), AccessDenied("denied")])
async def test_store_that_fails_leaves_the_known_keys_and_an_unknown_token_undecided(
    error: TotoError, log: Log
) -> None:
    store = Store(OLD)
    store.error = error
    store.now += COOLDOWN
    for _ in range(3):
        with pytest.raises(Undecidable):
            await store.finds(OTHER)
    assert store.knows(OLD)
    assert store.reads == 1
    assert OLD not in log.text
    store.error, store.current = None, NEW
    store.now += COOLDOWN
    assert await store.finds(NEW)
    assert not await store.finds(OTHER)


@pytest.mark.parametrize(
    ("current", "previous"), [("short", None), (NEW, "short"), ("-----BEGIN KEY" + "x" * 40, None)]
)
async def test_key_that_is_too_weak_is_not_taken_over(current: str, previous: str | None, log: Log) -> None:
    store = Store(OLD)
    store.current, store.previous = current, previous
    store.now += REFRESH_AFTER
    store.knows(OLD)
    await store.settled()
    assert store.knows(OLD)
    assert [record["severity"] for record in log.records()] == ["ERROR"]


def test_weak_previous_key_is_refused_at_start_by_its_name() -> None:
    with pytest.raises(ConfigurationError, match=r"secret 'jwt-signing-key-previous'\) has 5 bytes"):
        SigningKeys(OLD, "short")


# --- in a service ---


@toto_delegate
async def who(user_context: UserContext, exec_context: ExecutionContext) -> str | None:
    return user_context.email


def service(config: type[TotoControllerConfig] = TotoControllerConfig, **secrets: str) -> TestMicroservice:
    declared = TotoMicroserviceConfiguration(
        service_name="rotating",
        custom_config=config,
        api_configuration=APIConfiguration(api_endpoints=[APIEndpoint(method="GET", path="/who", delegate=who)]),
    )
    return TestMicroservice(declared, secrets={name.replace("_", "-"): value for name, value in secrets.items()})


def keys_of(tested: TestMicroservice) -> SigningKeys:
    (own,) = tested.microservice.authenticator._verifiers
    keys: SigningKeys = own._keys  # type: ignore[attr-defined]
    return keys


def later(keys: SigningKeys, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = keys._reading._clock() + seconds
    monkeypatch.setattr(keys._reading, "_clock", lambda: now)


async def status(tested: TestMicroservice, key: str) -> int:
    headers = {"authorization": f"Bearer {make_token(key, 'me')}"}
    return (await tested.client_of(None).get("/who", headers=headers)).status_code


async def test_service_follows_a_rotation_and_forgets_what_the_old_key_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with service(jwt_signing_key=OLD) as tested:
        secrets: MutableMapping[str, Any] = tested.secrets
        keys = keys_of(tested)
        remembered = {"authorization": f"Bearer {make_token(OLD, 'me')}"}
        client = tested.client_of(None)
        assert (await client.get("/who", headers=remembered)).status_code == 200
        assert await status(tested, NEW) == 401

        secrets["jwt-signing-key"], secrets["jwt-signing-key-previous"] = NEW, OLD
        later(keys, COOLDOWN, monkeypatch)
        assert await status(tested, NEW) == 200
        assert (await client.get("/who", headers=remembered)).status_code == 200
        assert tested.microservice.config.jwt_key == NEW  # what the service signs for others

        del secrets["jwt-signing-key-previous"]
        later(keys, COOLDOWN, monkeypatch)
        assert await status(tested, OTHER) == 401
        assert (await client.get("/who", headers=remembered)).status_code == 401
        assert await status(tested, NEW) == 200


async def test_previous_key_is_read_at_start() -> None:
    async with service(jwt_signing_key=NEW, jwt_signing_key_previous=OLD) as tested:
        assert [await status(tested, key) for key in (NEW, OLD, OTHER)] == [200, 200, 401]


class Assigned(TotoControllerConfig):
    async def load(self) -> TotoControllerConfig:
        await super().load()
        self.jwt_key = KEY
        return self


class Property(TotoControllerConfig):
    @property
    def jwt_key(self) -> str:  # type: ignore[override]
        return KEY


class Underscored(TotoControllerConfig):
    async def load(self) -> TotoControllerConfig:
        await super().load()
        self._jwt_key = KEY
        return self


@pytest.mark.parametrize("config", [Assigned, Property, Underscored])
async def test_key_that_the_service_set_is_not_read_again(
    config: type[TotoControllerConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(config, jwt_signing_key=OLD) as tested:
        tested.secrets["jwt-signing-key"] = NEW
        later(keys_of(tested), 10 * REFRESH_AFTER, monkeypatch)
        assert [await status(tested, key) for key in (KEY, NEW, OLD)] == [200, 401, 401]


@pytest.mark.parametrize("error", [NotFound, AccessDenied])
async def test_service_that_may_not_read_the_previous_key_starts_without_it(
    error: type[TotoError], monkeypatch: pytest.MonkeyPatch
) -> None:
    from totoms.secrets.manager import SecretsManager

    get = SecretsManager.get_secret_async

    async def getting(manager: Any, name: str, **more: Any) -> str:
        if name == "jwt-signing-key-previous":
            raise error("no")
        return await get(manager, name, **more)

    monkeypatch.setattr(SecretsManager, "get_secret_async", getting)
    async with service(jwt_signing_key=OLD) as tested:
        assert await status(tested, OLD) == 200


def test_claims_of_a_forged_token_are_checked_before_the_store_is_asked() -> None:
    async def run() -> int:
        store = Store(OLD)
        store.now += COOLDOWN
        authenticator = Authenticator(verifiers=[_own(store)])
        for user, lifetime in (("", 60.0), ("me", -60.0)):
            with pytest.raises(Unauthorized):
                await authenticator.authenticate([f"Bearer {make_token(OTHER, user, lifetime)}".encode()])
        return store.reads

    assert asyncio.run(run()) == 0


def _own(store: Store) -> Any:
    from totoms.auth.verifiers import OwnTokens

    return OwnTokens(store.keys)
