"""A TCP proxy that spoils what comes back: drops, resets, delays, half-opens; and dies and comes back on its port."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter

from standins.ports import reserve

_PIECE = 65536


class FaultProxy:
    """Stands between a client and a server on this machine.

    A *response* is what the server sends from the moment after the client last sent something. As one begins, dice say
    what becomes of it: ``drop`` (swallowed, the connection closed in order), ``reset`` (swallowed, the connection
    reset), ``delay`` (comes `delay_seconds` later), ``half_open`` (from then on nothing is passed on in either
    direction, and nobody is told), or nothing.

    Args:
        target: The server's port; may be changed, for a server that was started anew.
        seed: Of the dice.

    Attributes:
        odds: From fault to its probability, 0 to 1; for instance ``{"drop": 0.1}``.
        delay_seconds: How long a delayed response takes.
        counts: How many responses there were, and how many of each fault.
        port: Where it listens. It keeps its port when it is killed and restored.
    """

    def __init__(self, target: int, *, seed: int = 0) -> None:
        self.target = target
        self.odds: dict[str, float] = {}
        self.delay_seconds = 5.0
        self.counts: Counter[str] = Counter()
        self.port = 0
        self._dice = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()

    async def __aenter__(self) -> FaultProxy:
        await self.restore()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def restore(self) -> None:
        """Listen, on the port it had."""
        if self._server is None:
            self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Refuse connections and reset those that there are, as a machine does whose program died."""
        if self._server is not None:
            self._server.close()
            self._server = None
            reserve(self.port)  # or another process may get it before it is restored
        links = list(self._links)
        for link in links:
            link.reset()
        await asyncio.gather(*(link.ended() for link in links))

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(writer)
            return
        link = _Link(self, (reader, writer), upstream)
        self._links.add(link)
        try:
            await link.ended()
        finally:
            self._links.discard(link)

    def fault(self) -> str | None:
        """Throw the dice for one response."""
        self.counts["responses"] += 1
        number = self._dice.random()
        for name, odds in self.odds.items():
            if number < odds:
                self.counts[name] += 1
                return name
            number -= odds
        return None


class _Link:
    """One connection through the proxy."""

    def __init__(
        self,
        proxy: FaultProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client, self._to_client = client
        self._server, self._to_server = server
        self._asked = False
        self._silent = False
        self._tasks = [asyncio.create_task(self._requests()), asyncio.create_task(self._responses())]

    async def ended(self) -> None:
        """Wait until both directions have ended."""
        await asyncio.wait(self._tasks)
        for writer in (self._to_client, self._to_server):
            writer.close()

    def reset(self) -> None:
        """End it with a reset towards both."""
        for task in self._tasks:
            task.cancel()
        _reset(self._to_client)
        _reset(self._to_server)

    async def _requests(self) -> None:
        try:
            while data := await self._client.read(_PIECE):
                self._asked = True
                if not self._silent:
                    self._to_server.write(data)
                    await self._to_server.drain()
            if not self._silent:
                self._to_server.write_eof()
            else:
                self.reset()  # the client gave up without closing, but nothing must stay open here
        except OSError:
            self.reset()

    async def _responses(self) -> None:
        try:
            while data := await self._server.read(_PIECE):
                if self._asked:
                    self._asked = False
                    if not await self._let_through():
                        return
                if not self._silent:
                    self._to_client.write(data)
                    await self._to_client.drain()
            if not self._silent:
                self._to_client.close()
                self._tasks[0].cancel()
        except OSError:
            self.reset()

    async def _let_through(self) -> bool:
        match self._proxy.fault():
            case "drop":
                self._tasks[0].cancel()
                return False
            case "reset":
                self.reset()
                return False
            case "half_open":
                self._silent = True
            case "delay":
                await asyncio.sleep(self._proxy.delay_seconds)
        return True


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
