"""Stands in for Secret Manager: gRPC, with the client's own message types. It runs in threads, or as a process.

Secrets with versions that are enabled, disabled or destroyed, aliases, permissions, checksums, outages.
"""

from __future__ import annotations

import argparse
import re
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import grpc
from google.cloud.secretmanager_v1 import types
from google.protobuf.empty_pb2 import Empty

from standins.ports import reserve

_SERVICE = "google.cloud.secretmanager.v1.SecretManagerService"
_SECRET_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")
_STATES = types.SecretVersion.State


@dataclass
class Stored:
    """A secret: its versions, numbered from 1, and the state of each."""

    values: list[bytes] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=dict)


class SecretManagerStandIn:
    """Use it with ``with``.

    Attributes:
        port: Where it listens.
        secrets: By their path.
        denied: Paths of secrets that nobody may read.
        failing: The status with which everything is answered, if any.
        damaged: Whether values arrive with another checksum.
        calls: How often each method was called.
    """

    def __init__(self, port: int = 0) -> None:
        self.secrets: dict[str, Stored] = {}
        self.denied: set[str] = set()
        self.failing: grpc.StatusCode | None = None
        self.damaged = False
        self.calls: Counter[str] = Counter()
        self._lock = threading.Lock()
        # The port is taken once, so that after an outage it is the same.
        self.port = port
        self._server: grpc.Server | None = None

    def __enter__(self) -> SecretManagerStandIn:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen."""
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        handlers = {name: self._handler(name, request) for name, request in _METHODS.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        """Go away."""
        if self._server is not None:
            self._server.stop(None).wait(120)
            self._server = None
            reserve(self.port)  # or another process may get it before this starts again

    def wait(self) -> None:
        """Return when it has stopped."""
        assert self._server is not None
        self._server.wait_for_termination()

    def _handler(self, name: str, request: Any) -> Any:
        answer: Callable[[Any, Any], Any] = getattr(self, f"_{name}")

        def serve(message: Any, context: Any) -> Any:
            with self._lock:
                self.calls[name] += 1
            if self.failing is not None:
                context.abort(self.failing, "as the test says")
            made = answer(message, context)
            return type(made).pb(made) if hasattr(type(made), "pb") else made

        return grpc.unary_unary_rpc_method_handler(
            serve, request_deserializer=request.deserialize, response_serializer=lambda made: made.SerializeToString()
        )

    def _CreateSecret(self, request: Any, context: Any) -> Any:
        path = f"{request.parent}/secrets/{request.secret_id}"
        if not _SECRET_ID.fullmatch(request.secret_id):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The secret's id is invalid.")
        if path in self.secrets:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"Secret [{path}] already exists.")
        self.secrets[path] = Stored()
        return types.Secret(name=path)

    def _AddSecretVersion(self, request: Any, context: Any) -> Any:
        stored = self._stored(request.parent, context)
        if not 0 < len(request.payload.data) <= 65536:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The payload must have 1 to 65536 bytes.")
        with self._lock:
            stored.values.append(request.payload.data)
            stored.states.append(_STATES.ENABLED)
            return types.SecretVersion(name=f"{request.parent}/versions/{len(stored.values)}", state=_STATES.ENABLED)

    def _AccessSecretVersion(self, request: Any, context: Any) -> Any:
        path = request.name.partition("/versions/")[0]
        if path in self.denied:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"Permission denied for {path}.")
        stored, number = self._version(request.name, context)
        state = stored.states[number - 1]
        if state != _STATES.ENABLED:
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, f"Secret Version [{request.name}] is in {state.name} state."
            )
        value = stored.values[number - 1]
        checksum = google_crc32c.value(value) + self.damaged
        return types.AccessSecretVersionResponse(
            name=f"{path}/versions/{number}", payload=types.SecretPayload(data=value, data_crc32c=checksum)
        )

    def _DisableSecretVersion(self, request: Any, context: Any) -> Any:
        return self._become(_STATES.DISABLED, request, context)

    def _DestroySecretVersion(self, request: Any, context: Any) -> Any:
        return self._become(_STATES.DESTROYED, request, context)

    def _become(self, state: Any, request: Any, context: Any) -> Any:
        stored, number = self._version(request.name, context)
        stored.states[number - 1] = state
        return types.SecretVersion(name=request.name, state=state)

    def _DeleteSecret(self, request: Any, context: Any) -> Any:
        self._stored(request.name, context)
        del self.secrets[request.name]
        return Empty()

    def _stored(self, path: str, context: Any) -> Stored:
        if path not in self.secrets:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Secret [{path}] not found.")
        return self.secrets[path]

    def _version(self, name: str, context: Any) -> tuple[Stored, int]:
        path, _, version = name.partition("/versions/")
        stored = self._stored(path, context)
        number = len(stored.values) if version == "latest" else stored.aliases.get(version, 0)
        number = int(version) if version.isdigit() else number
        if not 0 < number <= len(stored.values):
            context.abort(grpc.StatusCode.NOT_FOUND, f"Secret Version [{name}] not found.")
        return stored, number


_METHODS: dict[str, Any] = {
    "CreateSecret": types.CreateSecretRequest,
    "AddSecretVersion": types.AddSecretVersionRequest,
    "AccessSecretVersion": types.AccessSecretVersionRequest,
    "DisableSecretVersion": types.DisableSecretVersionRequest,
    "DestroySecretVersion": types.DestroySecretVersionRequest,
    "DeleteSecret": types.DeleteSecretRequest,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    with SecretManagerStandIn(parser.parse_args().port) as server:
        print(server.port, flush=True)
        server.wait()
