"""A proxy as companies have them: it opens tunnels by CONNECT (RFC 9110, section 9.3.6) and knows hosts by name.

with ConnectProxy({"vault.example": port}) as proxy:
    os.environ["HTTPS_PROXY"] = proxy.url; ...; proxy.asked
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
from collections.abc import Mapping
from typing import Self

from standins.pipes import pipe

USER, PASSWORD = "me", "p@ss"


class ConnectProxy:
    """Runs in a thread of its own while the block does.

    Args:
        targets: From host names to the ports of this machine to which their tunnels lead.

    Attributes:
        asked: The host and port of each tunnel that was asked for.
        refused: How many requests had no or other credentials.
    """

    def __init__(self, targets: Mapping[str, int]) -> None:
        self.targets = targets
        self.asked: list[str] = []
        self.refused = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """With the credentials."""
        return f"http://{USER}:p%40ss@127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._tunnel(reader, writer)
        finally:
            writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split(" ", 2)
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        shown = {name.lower(): value for name, value in headers.items()}.get("proxy-authorization", "")
        wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if method != "CONNECT" or shown != f"Basic {wanted}":
            self.refused += 1
            writer.write(b"HTTP/1.1 407 -\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        self.asked.append(target)
        port = self.targets.get(target.partition(":")[0])
        if port is None:
            writer.write(b"HTTP/1.1 502 -\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 -\r\n\r\n")
        try:
            await asyncio.gather(pipe(reader, to_writer), pipe(to_reader, writer))
        finally:
            to_writer.close()
