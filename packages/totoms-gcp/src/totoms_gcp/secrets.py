"""Secrets of Google Secret Manager, ``projects/{project}/secrets/{name}``."""

from __future__ import annotations

import re
from typing import Final, cast

import google_crc32c
from google.api_core import exceptions as api
from google.api_core.retry import Retry, if_exception_type

from totoms.environment import TotoEnvironment
from totoms.errors import BackendError, CorruptData, NotFound
from totoms.secrets import SecretsManager
from totoms_gcp import clients
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.errors import told_as, translate

LATEST: Final = "latest"
_LONGEST: Final = 255
# An underscore is escaped only where it would look like an escape.
_ESCAPED: Final = re.compile(rb"[^A-Za-z0-9_-]|_(?=x[0-9A-F]{2})")
_VERSION: Final = re.compile(r"[A-Za-z0-9_-]{1,63}")
_PATH: Final = re.compile(r"projects/[^\s\]]*")
_CALL_SECONDS: Final = 3.0
# The client's own goes on for a minute, whatever the time-out of a call.
_RETRY: Final = Retry(
    predicate=if_exception_type(api.ServiceUnavailable, api.TooManyRequests, api.InternalServerError),
    initial=0.1, maximum=1.0, timeout=5.0,
)  # fmt: skip


class GCPSecretsManager(SecretsManager):
    """Reads Google Secret Manager.

    A `version` is its number, which never changes, or an alias of the secret's.
    """

    def __init__(self, environment: TotoEnvironment | None = None) -> None:
        super().__init__(environment)
        self._project = cast(GCPConfiguration, self.environment.hyperscaler_configuration).project_id

    def _pins(self, version: str) -> bool:
        return version.isascii() and version.isdigit()

    def _fetch(self, name: str, version: str | None) -> bytes:
        identifier = identifier_of(name)
        wanted = LATEST if version is None else version
        if len(identifier) > _LONGEST or not _VERSION.fullmatch(wanted):
            raise self._missing(name, version)
        path = f"projects/{self._project}/secrets/{identifier}/versions/{wanted}"
        with told_as("the secret", name):
            client = clients.secrets()
        try:
            answer = client.access_secret_version(name=path, timeout=_CALL_SECONDS, retry=_RETRY)
        except api.FailedPrecondition as error:
            raise NotFound(f"The secret {name!r} cannot be read: {_state(error, version)}.", resource=name) from error
        except Exception as error:
            told: BackendError = translate(error, "the secret", name)
            raise self._missing(name, version) if isinstance(told, NotFound) else told from error
        payload = answer.payload
        if "data_crc32c" in payload and google_crc32c.value(payload.data) != payload.data_crc32c:
            raise CorruptData(f"What came of the secret {name!r} does not have its checksum.", resource=name)
        return bytes(payload.data)

    def _missing(self, name: str, version: str | None) -> NotFound:
        which = "" if version is None else f", or it has no version {version!r}"
        return NotFound(
            f"No secret {name!r}: the project {self._project!r} has no {identifier_of(name)!r}{which}.", resource=name
        )


def identifier_of(name: str) -> str:
    """Return what Google calls a secret: its name, where what Google does not allow is written as bytes, ``_x2F``."""
    return _ESCAPED.sub(lambda found: b"_x%02X" % found[0][0], name.encode()).decode()


def _state(error: api.FailedPrecondition, version: str | None) -> str:
    which = "its latest version" if version is None else f"its version {version!r}"
    told = _PATH.sub("", str(error.message)).lower()  # a secret may be called what it is not
    state = next((word for word in ("destroyed", "disabled") if word in told), "")
    return f"{which} is {state or 'disabled or destroyed'}"
