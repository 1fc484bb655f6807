"""Decorators for the tests of the contract: they pass a `Topic` in place of the harness."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from totoms.errors import Unsupported
from totoms.messages.driver import PULL
from totoms.testing.messages.harness import MessageBusHarness
from totoms.testing.messages.topic import Topic

_Test = Callable[..., Coroutine[Any, Any, None]]


def on_topic(test: _Test) -> _Test:
    """Pass a test a `Topic` in place of the harness."""
    return _given(test, pull=False)


def pulled(test: _Test) -> _Test:
    """Do what `on_topic` does; without PULL assert instead that subscribing is refused."""
    return _given(test, pull=True)


def short_leases(test: _Test) -> _Test:
    """Do what `pulled` does, with short leases."""
    return _given(test, pull=True, short=True)


def _given(test: _Test, *, pull: bool, short: bool = False) -> _Test:
    @functools.wraps(test)
    async def run(self: Any, harness: MessageBusHarness, *arguments: Any, **named: Any) -> None:
        if short:
            harness.shorten_leases()
        async with Topic(harness, self.capabilities) as topic:
            bus = await topic.connect()
            if not pull or PULL in self.capabilities:
                await test(self, topic, *arguments, **named)
                return
            with pytest.raises(Unsupported):
                await bus._subscribe(topic.subscription(), create=False)

    given, _topic, *others = inspect.signature(test).parameters.values()
    harness = inspect.Parameter("harness", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = inspect.Signature([given, harness, *others])  # type: ignore[attr-defined]
    return run
