"""The secrets contract, part leaks: behaviour 52."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from totoms.context import new_cid
from totoms.errors import BackendError, Unsupported
from totoms.testing.contract import Contract
from totoms.testing.secrets.harness import SecretsManagerHarness
from totoms.testing.secrets.reading import new_name


class SecretsCanary(Contract):
    """Search logs, output, reprs and errors for the value of a secret."""

    async def test_52_value_shows_nowhere(
        self, harness: SecretsManagerHarness, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """No log line, output, repr or error contains the value, however it is read and whatever fails."""
        caplog.set_level(logging.DEBUG)
        canary, manager = new_cid(), harness.manager()
        values = {
            new_name("text"): canary.encode(),
            new_name("binary"): b"\xff" + canary.encode(),
            new_name("json"): json.dumps({"password": canary}).encode(),
            new_name("broken"): b'{"password": "' + canary.encode(),
            new_name("list"): json.dumps([canary]).encode(),
        }
        shown: list[str] = []
        for name, value in values.items():
            try:
                await harness.set_secret(name, value)
            except Unsupported:
                continue
            await self._try(manager, name, shown)
        async with harness.outage():
            harness.advance(manager.cache_seconds)
            await asyncio.gather(*(self._try(manager, name, shown) for name in values))
            harness.advance(manager.stale_seconds)
            await asyncio.gather(*(self._try(manager, name, shown) for name in values))
        first = next(iter(values))
        await harness.deny(first)
        await self._try(manager, first, shown)
        for one in (manager, manager._cache, manager.environment, manager.environment.hyperscaler_configuration):
            shown += [repr(one), str(one), repr(getattr(one, "__dict__", None))]
        shown += [repr(part) for part in vars(manager._cache).values()]
        shown += [record.getMessage() + repr(vars(record)) for record in caplog.records]
        shown += [caplog.text, *capfd.readouterr()]
        leaks = [text.replace(canary, "<the value>") for text in shown if canary in text]
        assert leaks == []

    async def _try(self, manager: Any, name: str, shown: list[str]) -> None:
        uses: list[Callable[[], Awaitable[object]]] = [
            lambda: manager.get_secret_bytes_async(name),
            lambda: manager.get_secret_async(name),
            lambda: manager.get_secret_json_async(name),
            lambda: manager.get_secret_json_async(name, "missing"),
            lambda: manager.get_secret_async(name, version="no-such-version"),
            lambda: asyncio.to_thread(manager.get_secret, name),
        ]
        for use in uses:
            try:
                await use()
            except BackendError as error:
                shown += _all_of(error)


def _all_of(error: BaseException) -> list[str]:
    """Return all texts of an error, its causes and its contexts, whether a traceback shows them or not."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in seen:
            seen.append(one)
            waiting += [one.__cause__, one.__context__]
    texts = ["".join(traceback.format_exception(error))]
    for one in seen:
        # Some keep the input in an attribute: a decoding error in `object`, a JSON error in `doc`.
        inputs = [getattr(one, name, None) for name in ("object", "doc", "response", "__notes__")]
        texts.append(f"{one!s} {one!r} {one.args!r} {vars(one)!r} {inputs!r}")
    return texts
