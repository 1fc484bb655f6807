"""Secrets managers that are broken on purpose: the contract must see each, and pass the one that is not."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import time
from dataclasses import dataclass
from typing import Any

import pytest

from support.mutants.secrets import StoredSecrets, StoreHarness
from totoms.errors import AccessDenied, BackendError, NotFound, Unavailable
from totoms.logging.logger import TotoLogger
from totoms.testing import SecretsManagerContract

SEEN = (AssertionError, BackendError, pytest.fail.Exception)


class Declared(SecretsManagerContract):
    __test__ = False
    backend = "store"
    capabilities = frozenset({"versions", "cache"})


class JoinsSigns(StoredSecrets):
    def _fetch(self, name: str, version: str | None) -> bytes:
        for stored in self.store.versions:
            if re.sub(r"[/_.-]", "-", stored) == re.sub(r"[/_.-]", "-", name):
                return super()._fetch(stored, version)
        return super()._fetch(name, version)


class FindsByBeginning(StoredSecrets):
    def _fetch(self, name: str, version: str | None) -> bytes:
        return super()._fetch(next((one for one in self.store.versions if one.startswith(name)), name), version)


class AsksBeforeItChecks(StoredSecrets):
    def get_secret(self, name: str, *, version: str | None = None) -> str:
        if self.store.away:
            raise Unavailable("away", resource=name)
        return super().get_secret(name, version=version)


class StripsText(StoredSecrets):
    def _fetch(self, name: str, version: str | None) -> bytes:
        return super()._fetch(name, version).strip()


class NamesNothing(StoredSecrets):
    def _fetch(self, name: str, version: str | None) -> bytes:
        try:
            return super()._fetch(name, version)
        except NotFound:
            raise NotFound("Secrets Manager can't find the specified secret.") from None


class CallsDeniedMissing(StoredSecrets):
    def _fetch(self, name: str, version: str | None) -> bytes:
        try:
            return super()._fetch(name, version)
        except AccessDenied as error:
            raise NotFound(error.message, resource=name) from error


class ServesWhatWasRevoked(StoredSecrets):
    def _fetch(self, name: str, version: str | None) -> bytes:
        try:
            return super()._fetch(name, version)
        except (AccessDenied, NotFound) as error:
            raise Unavailable(error.message, resource=name) from error


class GivesEmptyValues(StoredSecrets):
    def _checked(self, name: str, version: str | None) -> bytes:
        return self._fetch(name, version)


class GuessesText(StoredSecrets):
    def _fetch(self, name: str, version: str | None) -> bytes:
        return super()._fetch(name, version).decode("utf-8", "replace").encode()


class GivesNoneForMissingFields(StoredSecrets):
    async def get_secret_json_async(self, name: str, field: str | None = None, *, version: str | None = None) -> Any:
        document = json.loads(await self.get_secret_bytes_async(name, version=version))
        return document if field is None else document.get(field)


class IgnoresVersions(StoredSecrets):
    def _fetch(self, name: str, version: str | None) -> bytes:
        return super()._fetch(name, None)


class CachesWithoutVersions(StoredSecrets):
    def _look_up(self, name: str, version: str | None) -> Any:
        found = self._cache._entries.get((name, None))
        return found.result if found else super()._look_up(name, version)


class RemembersForEver(StoredSecrets):
    def _policy(self, version: str | None) -> Any:
        return type(super()._policy(version))(float("inf"), float("inf"))


class RemembersNothing(StoredSecrets):
    cache_seconds = 0.0


class RemembersMissing(StoredSecrets):
    def _fetch(self, name: str, version: str | None) -> bytes:
        missing: set[str] = vars(self).setdefault("missing", set())
        if name in missing:
            raise NotFound(f"No secret {name!r}.", resource=name)
        try:
            return super()._fetch(name, version)
        except NotFound:
            missing.add(name)
            raise


class FetchesForEachCaller(StoredSecrets):
    async def get_secret_bytes_async(self, name: str, *, version: str | None = None) -> bytes:
        return await asyncio.to_thread(self._checked, name, version)

    def get_secret_bytes(self, name: str, *, version: str | None = None) -> bytes:
        self._look_up(name, version)
        return self._checked(name, version)


class TakesTheFetchAlong(StoredSecrets):
    """A caller that is cancelled cancels it for the others."""

    async def get_secret_bytes_async(self, name: str, *, version: str | None = None) -> bytes:
        flights: dict[str, asyncio.Task[bytes]] = vars(self).setdefault("flights", {})
        if name not in flights:
            flights[name] = asyncio.create_task(asyncio.to_thread(self._checked, name, version))
        return await flights[name]


class BlocksTheLoop(StoredSecrets):
    async def get_secret_bytes_async(self, name: str, *, version: str | None = None) -> bytes:
        if "blocked" not in vars(self):
            self.blocked = True
            time.sleep(1.0)  # noqa: ASYNC251 - that is what is broken
        return await super().get_secret_bytes_async(name, version=version)


class ServesStaleForEver(StoredSecrets):
    stale_seconds = 3600.0

    def _policy(self, version: str | None) -> Any:
        return type(super()._policy(version))(self.cache_seconds, float("inf"))


class ServesNothingStale(StoredSecrets):
    def _policy(self, version: str | None) -> Any:
        return type(super()._policy(version))(self.cache_seconds, 0.0)


class CallsAwayMissing(StoredSecrets):
    def _fetch(self, name: str, version: str | None) -> bytes:
        try:
            return super()._fetch(name, version)
        except Unavailable as error:
            raise NotFound(error.message, resource=name) from error


class ShowsValuesInItsRepr(StoredSecrets):
    def __repr__(self) -> str:
        return f"<secrets {[entry.result for entry in self._cache._entries.values()]}>"


class QuotesValues(StoredSecrets):
    async def get_secret_json_async(self, name: str, field: str | None = None, *, version: str | None = None) -> Any:
        value = await self.get_secret_bytes_async(name, version=version)
        try:
            return json.loads(value)
        except ValueError:
            raise NotFound(f"{value!r} is no JSON", resource=name) from None


class CarriesValuesAlong(StoredSecrets):
    """The message is clean, and the error behind it has the document."""

    async def get_secret_json_async(self, name: str, field: str | None = None, *, version: str | None = None) -> Any:
        value = await self.get_secret_bytes_async(name, version=version)
        try:
            return json.loads(value)
        except ValueError as error:
            raise NotFound("no JSON", resource=name) from error


class HidesTheContextOnly(StoredSecrets):
    async def get_secret_json_async(self, name: str, field: str | None = None, *, version: str | None = None) -> Any:
        value = await self.get_secret_bytes_async(name, version=version)
        try:
            return json.loads(value)
        except ValueError:
            raise NotFound("no JSON", resource=name) from None


class LogsValues(StoredSecrets):
    def _fetch(self, name: str, version: str | None) -> bytes:
        value = super()._fetch(name, version)
        TotoLogger.get_instance().log("c", f"Read {name}: {value.decode(errors='replace')}")
        return value


class PrintsValues(StoredSecrets):
    def _fetch(self, name: str, version: str | None) -> bytes:
        value = super()._fetch(name, version)
        print(value)
        return value


@dataclass(frozen=True)
class Mutant:
    test: str
    manager: type[StoredSecrets]


APART = "test_47_names_do_not_collide"
MISSING = "test_48_missing_secret_is_not_found"
DENIED = "test_48_denied_secret_is_access_denied"
SERVES = "test_51_value_serves_while_the_store_is_away"
CANARY = "test_52_value_shows_nowhere"
MUTANTS = [
    Mutant("test_47_secret_is_found_by_its_name", StripsText),
    Mutant(APART, JoinsSigns),
    Mutant("test_47_name_of_another_is_not_found", JoinsSigns),
    Mutant("test_47_name_of_another_is_not_found", FindsByBeginning),
    Mutant("test_47_what_is_not_a_name_is_refused", AsksBeforeItChecks),
    Mutant(MISSING, NamesNothing),
    Mutant(MISSING, RemembersMissing),
    Mutant(MISSING, ServesWhatWasRevoked),
    Mutant(DENIED, CallsDeniedMissing),
    Mutant(DENIED, ServesWhatWasRevoked),
    Mutant("test_48_empty_secret_is_reported", GivesEmptyValues),
    Mutant("test_48_binary_secret_is_bytes", GuessesText),
    Mutant("test_48_field_of_a_json_secret", GivesNoneForMissingFields),
    Mutant("test_49_version_is_pinned", IgnoresVersions),
    Mutant("test_49_version_is_pinned", CachesWithoutVersions),
    Mutant("test_49_latest_follows_a_rotation", RemembersForEver),
    Mutant("test_49_latest_follows_a_rotation", RemembersNothing),
    Mutant("test_50_hundred_callers_share_one_fetch", FetchesForEachCaller),
    Mutant("test_50_hundred_callers_share_one_fetch", TakesTheFetchAlong),
    Mutant("test_50_hundred_callers_share_one_fetch", BlocksTheLoop),
    Mutant("test_50_hundred_threads_share_one_fetch", FetchesForEachCaller),
    Mutant("test_50_all_callers_get_the_error", FetchesForEachCaller),
    Mutant(SERVES, ServesStaleForEver),
    Mutant(SERVES, ServesNothingStale),
    Mutant(SERVES, CallsAwayMissing),
    Mutant("test_51_cold_cache_is_unavailable", CallsAwayMissing),
    Mutant(CANARY, ShowsValuesInItsRepr),
    Mutant(CANARY, QuotesValues),
    Mutant(CANARY, CarriesValuesAlong),
    Mutant(CANARY, HidesTheContextOnly),
    Mutant(CANARY, LogsValues),
    Mutant(CANARY, PrintsValues),
]


async def run(name: str, manager: type[StoredSecrets], request: pytest.FixtureRequest) -> None:
    """Run one of the contract's tests."""
    test = getattr(Declared(), name)
    fixtures = {one: request.getfixturevalue(one) for one in inspect.signature(test).parameters if one != "harness"}
    await test(StoreHarness(manager), **fixtures)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.test.split('_')[1]}-{mutant.manager.__name__}")
async def test_contract_sees_the_mutant(mutant: Mutant, request: pytest.FixtureRequest) -> None:
    with pytest.raises(SEEN):
        await run(mutant.test, mutant.manager, request)


@pytest.mark.parametrize("name", [name for name in dir(SecretsManagerContract) if re.match(r"test_[45]", name)])
async def test_contract_passes_the_store_that_is_not_broken(name: str, request: pytest.FixtureRequest) -> None:
    await run(name, StoredSecrets, request)
