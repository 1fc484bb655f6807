"""One connection to NATS: made when it is first needed, mended by the client, asked until a deadline."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from totoms.errors import AccessDenied, Closed, ConfigurationError, NotFound, Unavailable
from totoms_nats.configuration import NatsConfiguration
from totoms_nats.errors import told_as, translate

DEADLINE: Final = 8.0
"""Seconds for one operation, with all its tries. Less than `SecretsManager` waits."""
_TRY: Final = 2.0
"""Seconds until an answer is taken for lost: the connection broke while it was on its way."""
_CONNECT: Final = 5.0
_PAUSE: Final = 0.1
_Result = TypeVar("_Result")


class Connection:
    """Belongs to the event loop on which it is used first.

    Args:
        settings: Where to, and as whom.
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
            Unavailable: The servers are away.
            AccessDenied: They do not know us.
        """
        if self._loop is not asyncio.get_running_loop():  # the one before has ended, and the connection with it
            self._loop, self._client = asyncio.get_running_loop(), None
            self._connecting, self._connected = asyncio.Lock(), asyncio.Event()
        async with self._connecting:
            if self._closed:
                raise Closed("The connection to NATS is closed.")
            if self._client is None or self._client.is_closed:
                self._client = await self._connect()
        if not self._connected.is_set():
            try:
                async with asyncio.timeout(_CONNECT):
                    await self._connected.wait()
            except TimeoutError:
                raise Unavailable("NATS is away.") from None
        return self._client

    async def _connect(self) -> Client:
        settings, client = self._settings, Client()
        tls = await asyncio.to_thread(_tls, settings)
        with told_as("NATS cannot be reached"):
            try:
                async with asyncio.timeout(_CONNECT):
                    # Wrong credentials end this first connect at once; later the client mends what breaks, for ever.
                    await client.connect(
                        settings.servers, name="totoms", allow_reconnect=False, max_reconnect_attempts=-1,
                        reconnect_time_wait=1, ping_interval=10, user=settings.user,
                        password=settings.password.get_secret_value() if settings.password else None,
                        token=settings.token.get_secret_value() if settings.token else None, tls=tls,
                        error_cb=self._note, disconnected_cb=self._lost, reconnected_cb=self._mended,
                        # Nothing waits for a lost connection to come back: an old ack must not reach the broker late.
                        pending_size=0,
                    )  # fmt: skip
            except BaseException:
                await client.close()
                raise
        if self._closed:  # while we connected
            await client.close()
            raise Closed("The connection to NATS is closed.")
        client.options["allow_reconnect"] = True
        self._connected.set()
        return client

    async def _note(self, error: Exception) -> None:
        # The server tells of a refused publish beside the protocol; who asked would wait in vain.
        if "permissions violation for publish" in str(error).lower():
            self._denials += 1

    async def _lost(self) -> None:
        self._connected.clear()

    async def _mended(self) -> None:
        self._connected.set()

    # --- asking ---

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
            subject: Whom to ask.
            payload: What.
            headers: What travels beside it.
            until: When to give up, by the loop's clock; by default `DEADLINE` seconds from now.
        """
        given = dict(headers) if headers else None

        async def ask(client: Client) -> Msg:
            answer: Msg = await client.request(subject, payload, timeout=_TRY, headers=given)
            return answer

        return await self._until_answered(ask, f"NATS refused {subject!r}", subject, until)

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """Have JetStream keep a message; return its acknowledgement.

        With the header ``Nats-Msg-Id`` it is kept once, however often it had to be sent.
        """
        answer = await self.request(subject, payload, headers)
        with told_as(f"NATS did not keep what was published to {subject!r}", subject):
            content: dict[str, Any] = json.loads(answer.data)
            if "error" in content:
                raise nats.js.errors.APIError.from_error(content["error"])
        return content

    async def call(self, work: Callable[[JetStreamContext], Awaitable[_Result]], what: str, resource: str) -> _Result:
        """Have `work` done with JetStream's interface, again while answers get lost."""

        async def ask(client: Client) -> _Result:
            return await work(client.jetstream(timeout=_TRY))

        return await self._until_answered(ask, what, resource, None)

    async def _until_answered(
        self, ask: Callable[[Client], Awaitable[_Result]], what: str, resource: str, until: float | None
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
                ours = error if isinstance(error, Unavailable) else translate(error, what, resource)
                if ours is None:
                    raise
                if self._denials > denials:
                    raise AccessDenied(f"{what}: these credentials may not.", resource=resource) from error
                if not isinstance(ours, Unavailable) or clock() + _PAUSE >= end:
                    raise ours from error
            await asyncio.sleep(_PAUSE)

    async def close(self) -> None:
        """Close it for good."""
        self._closed = True
        self._connected.clear()
        if self._client is not None:
            await self._client.close()


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
