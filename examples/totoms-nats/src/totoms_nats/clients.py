"""Connections to NATS: made when first needed, restored by the client, with one retry layer for all requests."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from totoms.errors import AccessDenied, Closed, ConfigurationError, NotFound, Unavailable
from totoms.plugin import ClientRegistry
from totoms_nats.configuration import NatsConfiguration
from totoms_nats.errors import mapped_errors, translate
from totoms_nats.private_api import is_denied_publish, keep_reconnecting

DEADLINE: Final = 8.0
"""Seconds for one request with all its retries. Less than `SecretsManager` waits."""
_TRY: Final = 2.0
"""Seconds after which an answer counts as lost: the connection broke while it was on its way."""
_CONNECT: Final = 5.0
_PAUSE: Final = 0.1
_Result = TypeVar("_Result")


class Connection:
    """A connection that belongs to the event loop on which it is first used.

    Args:
        settings: The servers and credentials.
    """

    def __init__(self, settings: NatsConfiguration) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting = asyncio.Lock()
        self._connected = asyncio.Event()
        self._denials = 0
        self._closed = False

    async def client(self) -> Client:
        """Return the connected client.

        Raises:
            Unavailable: No server can be reached.
            AccessDenied: The server refused the credentials.
            Closed: After `close`.
        """
        if self._loop is not asyncio.get_running_loop():  # the one before has ended, and the connection with it
            self._loop, self._client = asyncio.get_running_loop(), None
            self._connecting, self._connected = asyncio.Lock(), asyncio.Event()
        async with self._connecting:
            self._check_open()
            if self._client is None or self._client.is_closed:
                self._client = await self._connect()
        if not self._connected.is_set():
            try:
                async with asyncio.timeout(_CONNECT):
                    await self._connected.wait()
            except TimeoutError:
                raise Unavailable("NATS cannot be reached.") from None
        return self._client

    async def _connect(self) -> Client:
        settings, client = self._settings, Client()
        tls = await asyncio.to_thread(_tls, settings)
        with mapped_errors("NATS cannot be reached"):
            try:
                async with asyncio.timeout(_CONNECT):
                    await client.connect(
                        settings.servers,
                        name="totoms",
                        allow_reconnect=False,  # wrong credentials end the first connect at once
                        max_reconnect_attempts=-1,
                        reconnect_time_wait=1,
                        ping_interval=10,
                        pending_size=0,  # buffered until a reconnect, an old ack would reach the broker too late
                        error_cb=self._note,
                        disconnected_cb=self._lost,
                        reconnected_cb=self._restored,
                        user=settings.user,
                        password=settings.password.get_secret_value() if settings.password else None,
                        token=settings.token.get_secret_value() if settings.token else None,
                        tls=tls,
                    )
            except BaseException:
                await client.close()
                raise
        if self._closed:  # while it connected
            await client.close()
        self._check_open()
        keep_reconnecting(client)
        self._connected.set()
        return client

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("The connection to NATS is closed.")

    async def _note(self, error: Exception) -> None:
        # A denied request gets no answer: the server reports it here only.
        self._denials += is_denied_publish(error)

    async def _lost(self) -> None:
        self._connected.clear()

    async def _restored(self) -> None:
        self._connected.set()

    # --- requests ---

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        until: float | None = None,
    ) -> Msg:
        """Send a request and return the answer. It is sent again while answers get lost, so it must be repeatable.

        Args:
            subject: Where to send it.
            payload: The body.
            headers: The headers.
            until: When to stop, by the loop's clock; by default `DEADLINE` seconds from now.
        """
        given = dict(headers) if headers else None

        async def ask(client: Client) -> Msg:
            answer: Msg = await client.request(subject, payload, timeout=_TRY, headers=given)
            return answer

        return await self._until_answered(ask, f"NATS refused {subject!r}", subject, until)

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """Store a message in JetStream and return its acknowledgement.

        With the header ``Nats-Msg-Id`` it is stored once, however often it had to be sent.
        """
        answer = await self.request(subject, payload, headers)
        with mapped_errors(f"NATS did not store what was published to {subject!r}", subject):
            content: dict[str, Any] = json.loads(answer.data)
            if "error" in content:
                raise nats.js.errors.APIError.from_error(content["error"])
        return content

    async def call(self, work: Callable[[JetStreamContext], Awaitable[_Result]], action: str, resource: str) -> _Result:
        """Call `work` with JetStream's interface, again while answers get lost. See `translate` for the other two."""

        async def ask(client: Client) -> _Result:
            return await work(client.jetstream(timeout=_TRY))

        return await self._until_answered(ask, action, resource, None)

    async def _until_answered(
        self, ask: Callable[[Client], Awaitable[_Result]], action: str, resource: str, until: float | None
    ) -> _Result:
        clock = asyncio.get_running_loop().time
        end = clock() + DEADLINE if until is None else until
        denials = self._denials
        while True:
            try:
                async with asyncio.timeout_at(end):
                    return await ask(await self.client())
            except (AccessDenied, Closed, NotFound):
                raise
            except Exception as error:
                raised = error if isinstance(error, Unavailable) else translate(error, action, resource)
                if raised is None:
                    raise
                if self._denials > denials:
                    raise AccessDenied(f"{action}: these credentials lack the right.", resource=resource) from error
                if not isinstance(raised, Unavailable) or clock() + _PAUSE >= end:
                    raise raised from error
            await asyncio.sleep(_PAUSE)

    async def close(self) -> None:
        """Close it for good."""
        self._closed = True
        self._connected.clear()
        if self._client is not None:
            await self._client.close()


class ThreadConnection:
    """A connection with an event loop in a thread of its own, for what is called from threads: storage and secrets.

    Args:
        settings: The servers and credentials.
    """

    def __init__(self, settings: NatsConfiguration) -> None:
        self.connection = Connection(settings)
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._run_loop, name="totoms-nats", daemon=True).start()

    def start(self, work: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        """Run `work` on the loop; the connection bounds how long that takes."""
        with self._lock:
            if self._closed:
                work.close()
                raise Closed("The connection to NATS is closed.")
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run `work` on the loop, and wait for its result."""
        return self.start(work).result()

    def close(self) -> None:
        """Close the connection and end the thread. Requests in progress end first, with an error."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _close(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TRY):
                await self.connection.close()
        pending = asyncio.all_tasks() - {asyncio.current_task()}
        if pending:
            await asyncio.wait(pending, timeout=_TRY)

    def _run_loop(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()


clients: Final = ClientRegistry()
atexit.register(clients.close)


def thread_connection(settings: NatsConfiguration) -> ThreadConnection:
    """Return the process's connection with these settings."""
    credentials = [secret.get_secret_value() if secret else "" for secret in (settings.password, settings.token)]
    files = settings.tls_ca, settings.tls_cert, settings.tls_key
    key = settings.url, settings.user, *credentials, *files
    return clients.get(key, lambda: ThreadConnection(settings))


def _tls(settings: NatsConfiguration) -> ssl.SSLContext | None:
    if settings.tls_ca is None and settings.tls_cert is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
        if settings.tls_cert is not None:
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:  # ssl.SSLError is one
        files = "NATS_TLS_CA, NATS_TLS_CERT or NATS_TLS_KEY"
        raise ConfigurationError(f"A file of {files} cannot be used: {type(error).__name__}.") from None
    return context
