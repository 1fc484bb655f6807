"""Secrets of Google Secret Manager, ``projects/{project}/secrets/{name}``."""

from __future__ import annotations

import re
from typing import Final, cast

import google_crc32c
from google.api_core import exceptions as api
from google.api_core.retry import Retry, if_exception_type

from totoms.errors import CorruptData, NotFound
from totoms.plugin import SecretsManager, TotoEnvironment
from totoms_gcp import clients
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.errors import mapped_errors, translate
from totoms_gcp.private_api import secret_state

LATEST: Final = "latest"
_MAX_NAME: Final = 255
# An underscore is escaped only where it would look like an escape.
_ESCAPED: Final = re.compile(rb"[^A-Za-z0-9_-]|_(?=x[0-9A-F]{2})")
_VERSION: Final = re.compile(r"[A-Za-z0-9_-]{1,63}")
_CALL_SECONDS: Final = 3.0
_RETRY: Final = Retry(
    predicate=if_exception_type(api.ServiceUnavailable, api.TooManyRequests, api.InternalServerError),
    initial=0.1,
    maximum=1.0,
    timeout=5.0,
)
"""Instead of the client's own, which retries for a minute, whatever the time-out of a call."""


class GCPSecretsManager(SecretsManager):
    """Reads Google Secret Manager.

    A `version` is its number, which never changes, or an alias of the secret's.
    """

    def __init__(self, environment: TotoEnvironment | None = None) -> None:
        super().__init__(environment)
        settings = cast(GCPConfiguration, self.environment.hyperscaler_configuration)
        self._project, self._location = settings.project_id, settings.secrets_location

    def _pins(self, version: str) -> bool:
        return version.isascii() and version.isdigit()

    def _fetch(self, name: str, version: str | None) -> bytes:
        identifier = identifier_of(name)
        wanted = LATEST if version is None else version
        if len(identifier) > _MAX_NAME or not _VERSION.fullmatch(wanted):
            raise self._missing(name, version)
        location = f"/locations/{self._location}" if self._location else ""
        path = f"projects/{self._project}{location}/secrets/{identifier}/versions/{wanted}"
        with mapped_errors("the secret", name):
            client = clients.secrets(self._location)
        try:
            answer = client.access_secret_version(name=path, timeout=_CALL_SECONDS, retry=_RETRY)
        except api.FailedPrecondition as error:
            which = "its latest version" if version is None else f"its version {version!r}"
            state = secret_state(error) or "disabled or destroyed"
            raise NotFound(f"The secret {name!r} cannot be read: {which} is {state}.", resource=name) from error
        except Exception as error:
            mapped = translate(error, "the secret", name)
            raise self._missing(name, version) if isinstance(mapped, NotFound) else mapped from error
        payload = answer.payload
        if "data_crc32c" in payload and google_crc32c.value(payload.data) != payload.data_crc32c:
            raise CorruptData(f"What was received for the secret {name!r} does not match its checksum.", resource=name)
        return bytes(payload.data)

    def _missing(self, name: str, version: str | None) -> NotFound:
        which = "" if version is None else f", or it has no version {version!r}"
        return NotFound(
            f"No secret {name!r}: the project {self._project!r} has no {identifier_of(name)!r}{which}.", resource=name
        )


def identifier_of(name: str) -> str:
    """Return Google's name for a secret: the same, with what Google does not allow written as its bytes, ``_x2F``."""
    return _ESCAPED.sub(lambda found: b"_x%02X" % found[0][0], name.encode()).decode()
