"""The secrets contract, part caching: behaviours 50 and 51."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from totoms.errors import NotFound, Unavailable
from totoms.secrets.manager import SecretsManager
from totoms.testing.contract import Contract
from totoms.testing.secrets.harness import SecretsManagerHarness
from totoms.testing.secrets.reading import CACHE, check_error, new_name
from totoms.testing.stalls import StallMeter

_CALLERS: Final = 100
_LONGEST_STALL: Final = 0.5


class _Gate:
    """Counts the fetches of a manager, and blocks them until it is opened."""

    def __init__(self, manager: SecretsManager) -> None:
        self.fetches = 0
        self.begun = threading.Event()
        self._open = threading.Event()
        self._lock = threading.Lock()
        self._patience = manager.deadline_seconds
        self._fetch: Callable[[str, str | None], bytes] = manager._fetch
        manager._fetch = self._counted  # type: ignore[method-assign]

    def open(self) -> None:
        self._open.set()

    def _counted(self, name: str, version: str | None) -> bytes:
        with self._lock:
            self.fetches += 1
        self.begun.set()
        assert self._open.wait(self._patience)
        return self._fetch(name, version)


class SecretsCaching(Contract):
    """Many callers share one fetch, and cached values survive an outage."""

    async def test_50_hundred_callers_share_one_fetch(self, harness: SecretsManagerHarness) -> None:
        """A hundred coroutines with a cold cache cause one fetch, and the event loop is not blocked."""
        manager, name = harness.manager(), new_name()
        await harness.set_secret(name, b"value")
        gate = _Gate(manager)
        try:
            async with StallMeter() as meter, asyncio.timeout(harness.patience):
                callers = [asyncio.create_task(manager.get_secret_async(name)) for _ in range(_CALLERS)]
                await asyncio.to_thread(gate.begun.wait, harness.patience)
                await asyncio.sleep(0)  # after this every caller has started: tasks run in order of creation
                callers[0].cancel()  # must not cancel the shared fetch
                gate.open()
                found = await asyncio.gather(*callers, return_exceptions=True)
        finally:
            gate.open()
        assert isinstance(found[0], asyncio.CancelledError)
        assert found[1:] == ["value"] * (_CALLERS - 1)
        assert gate.fetches == 1, f"the store was asked {gate.fetches} times"
        assert meter.longest < _LONGEST_STALL, f"the event loop was blocked for {meter.longest:.3f} s"

    async def test_50_hundred_threads_share_one_fetch(self, harness: SecretsManagerHarness) -> None:
        """A hundred threads cause one fetch; the next caller causes another only without a cache."""
        manager, name = harness.manager(), new_name()
        await harness.set_secret(name, b"value")
        gate = _Gate(manager)
        waiting = _count_waiting(manager)
        with ThreadPoolExecutor(_CALLERS) as pool:
            try:
                callers = [pool.submit(manager.get_secret, name) for _ in range(_CALLERS)]
                await asyncio.to_thread(waiting.wait, harness.patience)
            finally:
                gate.open()
            assert [caller.result(harness.patience) for caller in callers] == ["value"] * _CALLERS
        assert gate.fetches == 1, f"the store was asked {gate.fetches} times"
        assert manager.get_secret(name) == "value"
        assert gate.fetches == (1 if CACHE in self.capabilities else 2)

    async def test_50_all_callers_get_the_error(self, harness: SecretsManagerHarness) -> None:
        """All callers of a failed fetch get its error, which is not cached."""
        manager, name = harness.manager(), new_name()
        gate = _Gate(manager)
        callers = [asyncio.create_task(manager.get_secret_async(name)) for _ in range(_CALLERS)]
        try:
            await asyncio.to_thread(gate.begun.wait, harness.patience)
            await asyncio.sleep(0)
        finally:
            gate.open()
        found = await asyncio.gather(*callers, return_exceptions=True)
        assert {type(error) for error in found} == {NotFound}
        assert gate.fetches == 1, f"the store was asked {gate.fetches} times"
        await harness.set_secret(name, b"value")
        assert await manager.get_secret_async(name) == "value"

    async def test_51_value_serves_while_the_store_is_away(self, harness: SecretsManagerHarness) -> None:
        """During an outage a cached value is returned until it is `stale_seconds` old, then Unavailable is raised."""
        manager, name = harness.manager(), new_name()
        await harness.set_secret(name, b"value")
        uses: list[Callable[[], Awaitable[Any]]] = [
            lambda: manager.get_secret_async(name),
            lambda: asyncio.to_thread(manager.get_secret, name),
        ]
        assert await uses[0]() == "value"
        async with harness.outage():
            if CACHE in self.capabilities:
                harness.advance(manager.cache_seconds)
                for use in uses:
                    assert await use() == "value"
                harness.advance((manager.stale_seconds - manager.cache_seconds) * 0.9)
                for use in uses:
                    assert await use() == "value"
                harness.advance((manager.stale_seconds - manager.cache_seconds) * 0.2)
            for use in uses:
                await check_error(Unavailable, name, use)
        await harness.set_secret(name, b"rotated")
        for use in uses:
            assert await use() == "rotated"

    async def test_51_cold_cache_is_unavailable(self, harness: SecretsManagerHarness) -> None:
        """During an outage every caller with a cold cache gets Unavailable within the deadline."""
        name = new_name()
        await harness.set_secret(name, b"value")
        manager = harness.manager()
        async with harness.outage(), asyncio.timeout(manager.deadline_seconds + harness.patience):
            await check_error(Unavailable, name, lambda: manager.get_secret_async(name))
            await check_error(Unavailable, name, lambda: asyncio.to_thread(manager.get_secret, name))
        assert await manager.get_secret_async(name) == "value"


def _count_waiting(manager: SecretsManager) -> threading.Event:
    """Return an event that is set after all `_CALLERS` have looked the secret up in the cache."""
    all_waiting, lock = threading.Event(), threading.Lock()
    asked, look_up = 0, manager._look_up

    def counted(name: str, version: str | None, *, anew: bool = False) -> Any:
        nonlocal asked
        found = look_up(name, version, anew=anew)
        with lock:
            asked += 1
            if asked == _CALLERS:
                all_waiting.set()
        return found

    manager._look_up = counted  # type: ignore[method-assign]
    return all_waiting
