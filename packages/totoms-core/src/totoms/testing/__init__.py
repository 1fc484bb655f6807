"""Contract tests for backends, and `TestMicroservice` for services. Needs ``totoms[testing]``.

See "Writing a plugin" in the documentation: its author inherits the contracts and writes a harness for each. The
developer of a service uses `TestMicroservice`; see "Testing a service".
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from totoms.testing.contract import Contract as Contract
    from totoms.testing.lifecycle.contract import LifecycleContract as LifecycleContract
    from totoms.testing.lifecycle.harness import LifecycleHarness as LifecycleHarness
    from totoms.testing.messages.contract import MessageBusContract as MessageBusContract
    from totoms.testing.messages.harness import MessageBusHarness as MessageBusHarness
    from totoms.testing.push.contract import PushContract as PushContract
    from totoms.testing.push.harness import Pushed as Pushed
    from totoms.testing.push.harness import PushHarness as PushHarness
    from totoms.testing.secrets.contract import SecretsManagerContract as SecretsManagerContract
    from totoms.testing.secrets.harness import SecretsManagerHarness as SecretsManagerHarness
    from totoms.testing.service.backend import PublishedMessage as PublishedMessage
    from totoms.testing.service.dead_letters import load_dead_letters as load_dead_letters
    from totoms.testing.service.handled import HandledMessage as HandledMessage
    from totoms.testing.service.microservice import TestMicroservice as TestMicroservice
    from totoms.testing.storage.contract import CloudStorageContract as CloudStorageContract
    from totoms.testing.storage.harness import CloudStorageHarness as CloudStorageHarness

_MODULES: Final = {
    "CloudStorageContract": "storage.contract",
    "CloudStorageHarness": "storage.harness",
    "Contract": "contract",
    "HandledMessage": "service.handled",
    "LifecycleContract": "lifecycle.contract",
    "LifecycleHarness": "lifecycle.harness",
    "MessageBusContract": "messages.contract",
    "MessageBusHarness": "messages.harness",
    "PublishedMessage": "service.backend",
    "PushContract": "push.contract",
    "PushHarness": "push.harness",
    "Pushed": "push.harness",
    "SecretsManagerContract": "secrets.contract",
    "SecretsManagerHarness": "secrets.harness",
    "TestMicroservice": "service.microservice",
    "load_dead_letters": "service.dead_letters",
}
"""Loaded on first use: the contracts import pytest, which must rewrite their asserts before they are imported."""

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"totoms.testing.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
