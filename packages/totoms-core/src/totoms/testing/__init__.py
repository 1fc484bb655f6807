"""For tests: contracts that prove a backend right, and a test client for services. Needs ``totoms[testing]``.

A plugin author inherits the contracts and writes a harness for each; see the documentation, "Writing a plugin".
A service developer uses `TestMicroservice`; see "Testing a service".
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from totoms.testing.bench import PublishedMessage as PublishedMessage
    from totoms.testing.contract import Contract as Contract
    from totoms.testing.handled import HandledMessage as HandledMessage
    from totoms.testing.lifecycle import LifecycleContract as LifecycleContract
    from totoms.testing.lifecycle_harness import LifecycleHarness as LifecycleHarness
    from totoms.testing.messages import MessageBusContract as MessageBusContract
    from totoms.testing.messages_harness import MessageBusHarness as MessageBusHarness
    from totoms.testing.microservice import TestMicroservice as TestMicroservice
    from totoms.testing.push import PushContract as PushContract
    from totoms.testing.push_harness import Pushed as Pushed
    from totoms.testing.push_harness import PushHarness as PushHarness
    from totoms.testing.secrets import SecretsManagerContract as SecretsManagerContract
    from totoms.testing.secrets_harness import SecretsManagerHarness as SecretsManagerHarness
    from totoms.testing.storage import CloudStorageContract as CloudStorageContract
    from totoms.testing.storage_harness import CloudStorageHarness as CloudStorageHarness

_PLACES: Final = {
    "CloudStorageContract": "storage",
    "CloudStorageHarness": "storage_harness",
    "Contract": "contract",
    "HandledMessage": "handled",
    "LifecycleContract": "lifecycle",
    "LifecycleHarness": "lifecycle_harness",
    "MessageBusContract": "messages",
    "MessageBusHarness": "messages_harness",
    "PublishedMessage": "bench",
    "PushContract": "push",
    "PushHarness": "push_harness",
    "Pushed": "push_harness",
    "SecretsManagerContract": "secrets",
    "SecretsManagerHarness": "secrets_harness",
    "TestMicroservice": "microservice",
}
"""Loaded on first use: the contracts import pytest, and must be imported after pytest has prepared their asserts."""

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"totoms.testing.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
