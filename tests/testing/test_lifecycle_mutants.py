"""Backends that are broken on purpose: the contract of the lifecycle must see each, and pass the one that is not."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, ClassVar

import pytest

from support.local.lifecycle import LocalLifecycleHarness
from support.messages.by_name import ByName
from totoms.context import new_cid
from totoms.environment import set_default_environment
from totoms.errors import BackendError
from totoms.local.configuration import LocalConfiguration
from totoms.local.messages.bus import LocalMessageBus
from totoms.local.secrets import LocalSecretsManager
from totoms.local.storage.storage import LocalCloudStorage
from totoms.messages.driver import PULL
from totoms.messages.outgoing import Outgoing
from totoms.messages.receiver import Received, Receiver
from totoms.messages.subscription import Subscription
from totoms.plugins import loader as plugins
from totoms.plugins.hookspecs import hookimpl
from totoms.storage.storage import WriteOptions
from totoms.testing import LifecycleContract

NAME = "mutant"


class OpensAFileWhenMade(LocalMessageBus):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        with open(os.devnull):
            pass


class OpensASocketWhenMade(LocalMessageBus):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        socket.socket().close()


class StartsAThreadWhenMade(LocalSecretsManager):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.end = threading.Event()
        threading.Thread(target=self.end.wait, args=(30,), daemon=True).start()


class MakesAFolderWhenMade(LocalCloudStorage):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._root.mkdir(parents=True, exist_ok=True)


class TakesMessagesWhenClosed(LocalMessageBus):
    async def close(self) -> None:
        await self._close()


class ForgetsWhatWaitsAtItsStart(LocalMessageBus):
    async def _subscribe(self, subscription: Subscription, *, create: bool) -> None:
        await super()._subscribe(subscription, create=create)
        await self._do(lambda connection: connection.execute("DELETE FROM deliveries"))


class SubscribesToEveryTopic(LocalMessageBus):
    async def _subscribe(self, subscription: Subscription, *, create: bool) -> Receiver:
        for name, topic in self.topics.items():
            other = subscription.name.replace(subscription.logical_name, name)
            await super()._subscribe(Subscription(other, topic, name), create=create)
        return await super()._subscribe(subscription, create=create)


class SharesOneBroker(LocalMessageBus):
    root: ClassVar[Path | None] = None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        SharesOneBroker.root = self._root = SharesOneBroker.root or self._root


class SharesOneFolder(LocalCloudStorage):
    root: ClassVar[Path | None] = None

    @property
    def _root(self) -> Path:
        SharesOneFolder.root = SharesOneFolder.root or super()._root
        return SharesOneFolder.root


class SharesItsEnvironmentWithTheProcess(LocalSecretsManager):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        set_default_environment(self.environment)


class GivesMessagesNewIds(ByName, LocalMessageBus):
    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        batch = await super()._receive(subscription, max_messages, wait)
        for received in batch:
            received.message_id = new_cid()
        return batch


class LosesTheTraceparent(LocalMessageBus):
    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        for outgoing in batch:
            kept = {name: value for name, value in outgoing.attributes.items() if name != "traceparent"}
            outgoing.attributes = kept
        return await super()._publish(batch)


class KeepsAsciiOnly(LocalCloudStorage):
    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        import io

        return super()._write(key, io.BytesIO(source.read().decode().encode("ascii", "replace")), options)


CONSTRUCTING = "test_53_constructing_does_no_io"
AGAIN = "test_54_service_is_started_stopped_and_started_again"
APART = "test_55_services_on_two_backends_do_not_mix"
TWICE = "test_55_services_on_one_hyperscaler_do_not_mix"
WHOLE = "test_56_whole_service"
PUBLISHED = "test_60_topic_that_is_only_published_to_gets_no_subscription"
TRACED = "test_65_one_trace_spans_request_message_and_file"
MUTANTS = [
    (CONSTRUCTING, OpensAFileWhenMade),
    (CONSTRUCTING, OpensASocketWhenMade),
    (CONSTRUCTING, StartsAThreadWhenMade),
    (CONSTRUCTING, MakesAFolderWhenMade),
    (AGAIN, TakesMessagesWhenClosed),
    (AGAIN, ForgetsWhatWaitsAtItsStart),
    (APART, SharesItsEnvironmentWithTheProcess),
    (TWICE, SharesOneBroker),
    (TWICE, SharesOneFolder),
    (WHOLE, GivesMessagesNewIds),
    (WHOLE, KeepsAsciiOnly),
    (PUBLISHED, SubscribesToEveryTopic),
    (TRACED, LosesTheTraceparent),
]
Make = Callable[[type[Any]], LocalLifecycleHarness]


class Declared(LifecycleContract):
    __test__ = False
    backend = NAME
    capabilities = LocalMessageBus.capabilities


class WithoutPull(Declared):
    capabilities = LocalMessageBus.capabilities - {PULL}


def plugin(replaced: type[Any]) -> object:
    """The local backend, but for one class."""

    def pick(base: type[Any]) -> Any:
        return replaced if issubclass(replaced, base) else base

    def hook(name: str, base: type[Any]) -> Any:
        def implementation() -> Any:
            return pick(base)

        implementation.__name__ = name
        return hookimpl(implementation)

    return SimpleNamespace(
        totoms_configuration=hook("totoms_configuration", LocalConfiguration),
        totoms_message_bus=hook("totoms_message_bus", LocalMessageBus),
        totoms_cloud_storage=hook("totoms_cloud_storage", LocalCloudStorage),
        totoms_secrets_manager=hook("totoms_secrets_manager", LocalSecretsManager),
    )


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[LocalLifecycleHarness] = []

    def making(replaced: type[Any]) -> LocalLifecycleHarness:
        plugins.provide(NAME, plugin(replaced))
        made.append(LocalLifecycleHarness(tmp_path / f"{len(made)}" / "root", NAME))
        made[-1].patience = 3.0
        return made[-1]

    yield making
    set_default_environment(None)
    plugins._backends.pop(NAME, None)
    for harness in reversed(made):  # each puts back the environment variables that it found
        await harness.close()


@pytest.mark.parametrize(("test", "mutant"), MUTANTS, ids=[mutant.__name__ for _, mutant in MUTANTS])
async def test_contract_sees_the_mutant(test: str, mutant: type[Any], make: Make) -> None:
    run = getattr(Declared(), test)
    await run(make(object))

    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await run(make(mutant))


async def test_contract_sees_pull_that_is_declared_and_refused_and_the_other_way_round(make: Make) -> None:
    class NoPull(LocalMessageBus):
        capabilities = LocalMessageBus.capabilities - {PULL}

    await WithoutPull().test_56_whole_service(make(NoPull))
    with pytest.raises(pytest.fail.Exception):
        await WithoutPull().test_56_whole_service(make(object))
    with pytest.raises(Exception, match="no pull"):
        await Declared().test_56_whole_service(make(NoPull))
