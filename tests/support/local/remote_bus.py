"""A local message bus in a process of its own, whose operations are called from this one.

One process, which has imported all, forks another for each bus: that takes milliseconds. Run as a program, it is that
process; its standard input is the socket over which it is sent the others.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.messages.by_name import ByName, Through, ThroughStore
from totoms.environment import TotoEnvironment
from totoms.errors import BackendError, Unavailable
from totoms.local.configuration import LocalConfiguration
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.bus import MessageBus
from totoms.messages.dead_letters import DeadLetter, DeadLetterReason, DeadLetterStore
from totoms.messages.outgoing import Outgoing
from totoms.messages.receiver import Received, Receiver
from totoms.messages.subscription import Backlog, Subscription

_TESTS = Path(__file__).parents[2]
_COMMAND = [sys.executable, "-m", "support.local.remote_bus"]
_LENGTH = struct.Struct("!I")


def write(writer: asyncio.StreamWriter, what: Any) -> None:
    data = pickle.dumps(what)
    writer.write(_LENGTH.pack(len(data)) + data)


async def read(reader: asyncio.StreamReader) -> Any:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return pickle.loads(await reader.readexactly(length))


class BusProcesses:
    """The process that forks others. Started with the first bus; `close` ends it."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def fork(self) -> socket.socket:
        """Have a process made; return the socket to it."""
        if self._socket is None:
            self._socket, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(_COMMAND, stdin=theirs.fileno(), cwd=_TESTS)
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._socket, [b"."], [theirs.fileno()])
        return ours

    def close(self) -> None:
        if self._socket is not None and self._process is not None:
            self._socket.close()
            self._process.wait(120)


class _Newest(Through):
    """Stops the receiver of its subscription's name, unless that belongs to a later one."""

    async def stop(self) -> None:
        if self._bus._newest[self.subscription.name] is self:
            await super().stop()


class RemoteBus(MessageBus):
    """Forwards the operations of a bus, each with its answer; any number at a time.

    A message that it hands out has as its lease the number under which the other process keeps it.
    """

    capabilities = LocalMessageBus.capabilities
    max_message_bytes = LocalMessageBus.max_message_bytes

    def __init__(self, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> None:
        super().__init__(environment, topics)
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._connecting: asyncio.Task[asyncio.StreamWriter] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._newest: dict[str, Receiver] = {}

    def fork_from(self, processes: BusProcesses, *, lease_seconds: float) -> None:
        """Say where to fork the other process; it is done with the first operation."""
        self._processes = processes
        self._hello = (self.environment.hyperscaler_configuration.root, self.topics, lease_seconds)

    async def _connect(self) -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection(sock=await asyncio.to_thread(self._processes.fork))
        write(writer, self._hello)
        self._reading = asyncio.create_task(self._read(reader))
        return writer

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                number, result, error = await read(reader)
                answer = self._answers.pop(number)
                if not answer.cancelled():
                    answer.set_exception(error) if error is not None else answer.set_result(result)
        except asyncio.IncompleteReadError:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(Unavailable("The process of the bus has ended."))

    async def _call(self, operation: str, *arguments: Any) -> Any:
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        writer = await asyncio.shield(self._connecting)
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        write(writer, (number, operation, arguments))
        try:
            return await self._answers[number]
        except asyncio.CancelledError:
            write(writer, (None, "cancel", (number,)))
            raise

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        results: Sequence[BackendError | None] = await self._call("_publish", batch)
        return results

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> Receiver:
        await self._call("_subscribe", subscription, create)
        made = self._newest[subscription.name] = _Newest(self, subscription)
        return made

    async def _backlog(self, subscription: Subscription) -> Backlog | None:
        backlog: Backlog | None = await self._call("_backlog", subscription)
        return backlog

    def _dead_letters(self, subscription: str) -> DeadLetterStore:
        return ThroughStore(self, subscription)

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        batch: list[Received] = await self._call("_receive", subscription, max_messages, wait)
        return batch

    def _lease_of(self, subscription: Subscription) -> float:
        return self._hello[2]

    async def _stop_receiving(self, subscription: Subscription) -> None:
        await self._call("_stop_receiving", subscription)

    async def _ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        results: Sequence[BackendError | None] = await self._call("_ack", [one.lease for one in batch])
        return results

    async def _nack(self, received: Received, delay: float) -> None:
        await self._call("_nack", received.lease, delay)

    async def _release(self, batch: Sequence[Received]) -> None:
        await self._call("_release", [one.lease for one in batch])

    async def _extend(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        results: Sequence[BackendError | None] = await self._call("_extend", [one.lease for one in batch])
        return results

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> str | None:
        letter_id: str | None = await self._call("_dead_letter", received.lease, reason)
        return letter_id

    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        letters: list[DeadLetter] = await self._call("_list_dead_letters", subscription, limit)
        return letters

    async def _replay_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        return int(await self._call("_replay_dead_letters", subscription, letter_ids))

    async def _purge_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        return int(await self._call("_purge_dead_letters", subscription, letter_ids))

    async def _close(self) -> None:
        if self._connecting is not None:
            writer = await self._connecting
            await self._call("close")
            writer.write_eof()
            if self._reading is not None:
                await self._reading  # to the end of the process
            writer.close()


class _Server:
    """The other end: a bus, and the messages it handed out, by number."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._held: list[Received] = []
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        root, topics, lease_seconds = await read(self._reader)
        bus_class = type("Leasing", (ByName, LocalMessageBus), {"lease_seconds": lease_seconds})
        self._bus = bus_class(TotoEnvironment("local", LocalConfiguration(root=root)), topics)
        try:
            while True:
                number, operation, arguments = await read(self._reader)
                if operation == "cancel":
                    if arguments[0] in self._tasks:
                        self._tasks[arguments[0]].cancel()
                    continue
                self._tasks[number] = asyncio.create_task(self._answer(number, operation, arguments))
        except asyncio.IncompleteReadError:
            await self._bus.close()

    async def _answer(self, number: int, operation: str, arguments: Sequence[Any]) -> None:
        result, error = None, None
        try:
            result = await self._do(operation, *arguments)
        except (Exception, asyncio.CancelledError) as raised:
            error = raised
        write(self._writer, (number, result, error))
        del self._tasks[number]

    async def _do(self, operation: str, *arguments: Any) -> Any:
        method = getattr(self._bus, operation)
        if operation == "_subscribe":
            await method(arguments[0], create=arguments[1])
            return None
        if operation == "_receive":
            batch = await method(*arguments)
            self._held += batch
            first = len(self._held) - len(batch)
            return [replace(one, lease=number) for number, one in enumerate(batch, first)]
        if operation in ("_ack", "_release", "_extend"):
            return await method([self._held[number] for number in arguments[0]])
        if operation in ("_nack", "_dead_letter"):
            return await method(self._held[arguments[0]], *arguments[1:])
        return await method(*arguments)


async def _serve(connection: socket.socket) -> None:
    await _Server(*await asyncio.open_connection(sock=connection)).serve()


def _fork_for_ever() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # their exit status is not read
    control = socket.socket(fileno=sys.stdin.fileno())
    while True:
        sent, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not sent:
            return
        if os.fork() == 0:
            control.close()
            asyncio.run(_serve(socket.socket(fileno=descriptors[0])))
            os._exit(0)
        os.close(descriptors[0])


if __name__ == "__main__":
    _fork_for_ever()
