"""What an operator does with the program ``nats``: make topics, buckets and secrets."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nats.js import JetStreamContext, api
from nats.js.errors import KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from totoms_nats.clients import thread_connection
from totoms_nats.configuration import NatsConfiguration
from totoms_nats.naming import Names, key, token

_Result = TypeVar("_Result")
_HISTORY = 10


class Operator:
    """Sets up one installation. What exists already stays as it is.

    Args:
        settings: The settings of the installation.
    """

    def __init__(self, settings: NatsConfiguration) -> None:
        self.settings = settings
        self.names = Names(settings.prefix)

    def do(self, work: Callable[[JetStreamContext], Awaitable[_Result]]) -> _Result:
        """Call `work` with JetStream's own interface."""
        client = thread_connection(self.settings)
        return client.run(client.connection.call(work, "NATS refused", "operator"))

    def make_topic(self, subject: str, *others: str) -> None:
        """Make a stream that keeps a subject until every subscription has it. ``nats stream add``."""
        subjects = [subject, *others]
        self.do(
            lambda js: js.add_stream(name=token(subject), subjects=subjects, retention=api.RetentionPolicy.INTEREST)
        )

    def make_bucket(self, name: str) -> None:
        """Make an object store. ``nats object add``."""
        self.do(lambda js: js.create_object_store(self.names.bucket(name)))

    def make_secret(self, name: str, value: bytes) -> None:
        """Make a secret, unless there is one. ``nats kv add secrets; nats kv create secrets``."""

        async def create(js: JetStreamContext) -> None:
            with contextlib.suppress(KeyWrongLastSequenceError):
                await (await self._secrets(js)).create(key(name), value)

        self.do(create)

    def set_secret(self, name: str, value: bytes) -> int:
        """Set a secret, and return its version. ``nats kv put secrets``."""

        async def put(js: JetStreamContext) -> int:
            return await (await self._secrets(js)).put(key(name), value)

        return self.do(put)

    async def _secrets(self, js: JetStreamContext) -> KeyValue:
        return await js.create_key_value(bucket=self.names.secrets, history=_HISTORY, direct=True)
