"""A microservice's HTTP side without the rest of it, tokens of all kinds, and a key server under the test's hand."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from fastapi import FastAPI
from jwt.algorithms import RSAAlgorithm

from totoms.auth.authenticator import Authenticator
from totoms.auth.verifiers import Verifier
from totoms.declaration.api import APIConfiguration, APIEndpoint
from totoms.declaration.logging import LogConfiguration
from totoms.health import Readiness
from totoms.http.app import Push, create_app
from totoms.logging.formats import JSONFormatter
from totoms.logging.logger import TotoLogger

KEY = "the signing key of the tests, 32 bytes or more"
USER = "me@example.com"


class Settings:
    """Stands for a `TotoControllerConfig` whose secrets were read."""

    def __init__(self, key: str | None = KEY, open_paths: Iterable[str] = ()) -> None:
        self.jwt_key = key
        self.jwt_key_previous: str | None = None
        self.jwt_expected_audience: str | None = None
        self.open_paths = set(open_paths)

    def _signing_keys_reader(self) -> None:
        return None

    def is_path_excluded(self, path: str) -> bool:
        return path in self.open_paths


@dataclass
class HyperscalerSettings:
    default_host: str = "0.0.0.0"


@dataclass
class Environment:
    hyperscaler: str = "test"
    hyperscaler_configuration: Any = field(default_factory=HyperscalerSettings)


@dataclass
class Service:
    """What the HTTP side needs of a microservice, and the app made of it."""

    service_name: str = "tested"
    config: Any = field(default_factory=Settings)
    message_bus: Any = None
    environment: Any = field(default_factory=Environment)
    state: str = "ready"
    awaited_topics: list[str] = field(default_factory=list)
    authenticator: Any = None
    app: FastAPI = field(init=False)

    @property
    def readiness(self) -> Readiness:
        return Readiness([], self.config, self.logger)

    @property
    def logger(self) -> TotoLogger:
        return TotoLogger(self.service_name)

    def client(self, token: str | None = None, **headers: str) -> httpx.AsyncClient:
        """Return a client of the app in this process; `token` is sent with every request."""
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test", headers=headers)


def make_service(
    *endpoints: APIEndpoint,
    base_path: str = "",
    config: Any = None,
    verifiers: Sequence[Verifier] | None = None,
    push: Push | None = None,
    host: str = "0.0.0.0",
    log: LogConfiguration | None = None,
    **api: Any,
) -> Service:
    """Return a service with these endpoints."""
    service = Service(config=config or Settings(), environment=Environment("test", HyperscalerSettings(host)))
    configuration = APIConfiguration(api_endpoints=list(endpoints), **api)
    service.authenticator = Authenticator(service.config, configuration, verifiers=verifiers)
    service.app = create_app(service, configuration, base_path, push=push, log=log)
    return service


def token(key: Any = KEY, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    """Return a token of the service's own kind. A claim given as None is left out."""
    wanted = {"user": USER, "authProvider": "toto", "exp": int(time.time()) + 600, **claims}
    return jwt.encode({k: v for k, v in wanted.items() if v is not None}, key, algorithm=algorithm, headers=headers)


def sign(header: bytes, payload: bytes, signer: Callable[[bytes], bytes]) -> str:
    """Return a compact JWS of any two byte strings, however wrong they are."""
    signed = encode(header) + b"." + encode(payload)
    return (signed + b"." + encode(signer(signed))).decode()


def encode(data: bytes) -> bytes:
    """Encode as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class KeyServer:
    """Publishes a JWK set, or whatever else the test wants it to answer.

    Attributes:
        keys: From key id to private key; the public halves are published.
        answer: Bytes to answer in place of the key set.
        paths: Bytes to answer at certain paths.
        status: The HTTP status.
        location: Sent as `Location`, for redirects.
        hold: While it is cleared, requests wait.
        fetches: How many requests came.
    """

    def __init__(self) -> None:
        self.keys: dict[str, RSAPrivateKey] = {}
        self.answer: bytes | None = None
        self.paths: dict[str, bytes] = {}
        self.status = 200
        self.location = ""
        self.hold = threading.Event()
        self.hold.set()
        self.asked = threading.Event()
        self.fetches = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.fetches += 1
                server.asked.set()
                server.hold.wait(120)
                body = server.published() if server.answer is None else server.answer
                body = server.paths.get(self.path, body)
                self.send_response(server.status)
                if server.location:
                    self.send_header("location", server.location)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_port}/certs"

    def published(self) -> bytes:
        entries = []
        for kid, key in self.keys.items():
            entry = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
            entries.append({**entry, "kid": kid, "use": "sig", "alg": "RS256"})
        return json.dumps({"keys": entries}).encode()

    @contextmanager
    def running(self) -> Iterator[KeyServer]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.hold.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def rsa_key() -> RSAPrivateKey:
    """Make a key of the size that issuers use."""
    return generate_private_key(65537, 2048)


class Log:
    """Collects log lines as a collector would get them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._handler = logging.Handler()
        self._handler.setFormatter(JSONFormatter())
        self._handler.emit = self._collect  # type: ignore[method-assign]

    def _collect(self, record: logging.LogRecord) -> None:
        self.lines.append(self._handler.format(record))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @contextmanager
    def collecting(self) -> Iterator[Log]:
        root, ours = logging.getLogger(), logging.getLogger("totoms")
        level = ours.level
        root.addHandler(self._handler)
        ours.setLevel(logging.INFO)
        try:
            yield self
        finally:
            ours.setLevel(level)
            root.removeHandler(self._handler)
