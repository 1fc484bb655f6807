"""A stand-in for Key Vault: HTTPS, the challenge for a token, secrets with versions, states and soft delete.

https://learn.microsoft.com/rest/api/keyvault/secrets/operation-groups

As a program, ``python key_vault.py --port=N --entra-port=N --ca-file=PATH``, it runs with an Entra ID beside it.
"""

from __future__ import annotations

import argparse
import json
import re
import ssl
import tempfile
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trustme

from standins.azure.entra import TENANT, EntraStandIn
from standins.http_server import HTTPStandIn

_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")


@dataclass
class Version:
    """One version of a secret."""

    value: str
    attributes: dict[str, Any]
    number: str = field(default_factory=lambda: uuid.uuid4().hex)


class KeyVaultStandIn(HTTPStandIn):
    """Use it with ``with``.

    Args:
        entra: Gives out the tokens that it takes.
        port: Where to listen; 0 for one that is free.
        ca_file: Where its authority's certificate is written, for clients to trust.
        host: Its name, for who comes through a proxy that knows where it is.

    Attributes:
        secrets: Versions by the secret's name in lower case, oldest first.
        deleted: The same, of secrets that were deleted: until they are purged, nobody has their names.
        denied: Names, in lower case, of secrets that nobody may read.
        status: With which everything is answered; 200 for as it should be.
        calls: How often each method was called.
        authority: Signs certificates that clients trust with `ca_file`.
    """

    def __init__(self, entra: EntraStandIn, port: int = 0, ca_file: str = "", host: str = "") -> None:
        self.host = host
        self._folder = tempfile.TemporaryDirectory()
        self.ca_file = ca_file or str(Path(self._folder.name) / "ca.pem")
        self.authority = authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host or "127.0.0.1").configure_cert(context)
        super().__init__(port, context)
        self._entra = entra
        self.secrets: dict[str, list[Version]] = {}
        self.deleted: dict[str, list[Version]] = {}
        self.denied: set[str] = set()
        self.status = 200
        self.calls: Counter[str] = Counter()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        return f"https://{self.host or f'127.0.0.1:{self.port}'}"

    @property
    def resource(self) -> str:
        """What tokens must be for. The SDK wants it to be a parent domain of the vault's own, as in Azure's names."""
        return f"https://{self.host.partition('.')[2] or f'0.0.1:{self.port}'}"

    def set(self, name: str, value: str, **attributes: Any) -> str:
        """Make a new version; return its number."""
        now = int(time.time())
        version = Version(value, {"enabled": True, "created": now, "updated": now, **attributes})
        self.secrets.setdefault(name.lower(), []).append(version)
        return version.number

    def answer(self, request: BaseHTTPRequestHandler, method: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        parts = [part for part in urlsplit(request.path).path.split("/") if part]
        self.calls[method] += 1
        if self.status != 200:
            return self._error(self.status, "Throttled", headers={"Retry-After": "0"})
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not self._entra.accepts(token, self.resource):
            challenge = f'Bearer authorization="https://login.microsoftonline.com/{TENANT}", resource="{self.resource}"'
            return self._error(401, "Unauthorized", headers={"WWW-Authenticate": challenge})
        if len(parts) < 2 or parts[0] not in ("secrets", "deletedsecrets") or not _NAME.fullmatch(parts[1]):
            return self._error(400, "BadParameter")
        name = parts[1].lower()
        if parts[0] == "deletedsecrets":
            return self._purge(name) if method == "DELETE" else self._error(405, "MethodNotAllowed")
        if name in self.denied:
            return self._error(403, "Forbidden", inner="ForbiddenByRbac")
        if method == "PUT" and name in self.deleted:
            return self._error(409, "Conflict", inner="ObjectIsDeletedButRecoverable")
        if method == "PUT":
            asked = json.loads(body)
            self.set(name, asked["value"], **(asked.get("attributes") or {}))
            return self._found(name, self.secrets[name][-1])
        if method == "DELETE" and name in self.secrets:
            self.deleted[name] = self.secrets.pop(name)
            return self._found(name, self.deleted[name][-1])
        return self._get(name, parts[2] if len(parts) > 2 else "")

    def _purge(self, name: str) -> tuple[int, dict[str, str], bytes]:
        return (204, {}, b"") if self.deleted.pop(name, None) else self._error(404, "SecretNotFound")

    def _get(self, name: str, number: str) -> tuple[int, dict[str, str], bytes]:
        versions = self.secrets.get(name, [])
        wanted = [version for version in versions if not number or version.number == number]
        if not wanted:
            return self._error(404, "SecretNotFound")
        if not wanted[-1].attributes["enabled"]:
            return self._error(403, "Forbidden", inner="SecretDisabled")
        return self._found(name, wanted[-1])

    def _found(self, name: str, version: Version) -> tuple[int, dict[str, str], bytes]:
        told = {
            "value": version.value,
            "id": f"{self.url}/secrets/{name}/{version.number}",
            "attributes": version.attributes,
        }
        return 200, {}, json.dumps(told).encode()

    def _error(
        self, status: int, code: str, *, inner: str = "", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        told: dict[str, Any] = {"code": code, "message": f"As the stand-in says: {code}."}
        if inner:
            told["innererror"] = {"code": inner}
        return status, headers or {}, json.dumps({"error": told}).encode()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--entra-port", type=int, default=0)
    parser.add_argument("--ca-file", default="")
    parsed = parser.parse_args()
    with (
        EntraStandIn(parsed.entra_port) as identities,
        KeyVaultStandIn(identities, parsed.port, parsed.ca_file) as vault,
    ):
        print(vault.port, identities.port, flush=True)
        threading.Event().wait()
