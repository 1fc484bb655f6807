"""Secrets of AWS Secrets Manager, named ``{environment}/{name}``."""

from __future__ import annotations

import re
from typing import Any, Final, cast

from botocore.exceptions import BotoCoreError, ClientError

from totoms.errors import NotFound, Unavailable
from totoms.plugin import SecretsManager, TotoEnvironment
from totoms_aws.clients import client
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.errors import code_of, mapped_errors, translate

_MAX_NAME: Final = 512
# An equals sign is escaped only where it would look like an escape.
_ESCAPED: Final = re.compile(rb"[^A-Za-z0-9/_+=.@-]|=(?=[0-9A-F]{2})")
_VERSION_ID: Final = re.compile(r"[A-Za-z0-9-]{32,64}")
_DELETED: Final = "InvalidRequestException"
"""Marked for deletion in some days: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
"""


class AWSSecretsManager(SecretsManager):
    """Reads AWS Secrets Manager, text and binary secrets alike.

    A `version` of 32 to 64 letters, digits and hyphens is a version's id (usually a UUID), which never changes. Any
    other is a stage: ``AWSCURRENT``, which is the default, ``AWSPREVIOUS``, ``AWSPENDING`` or one of your own.
    """

    def __init__(self, environment: TotoEnvironment | None = None) -> None:
        super().__init__(environment)
        self._settings = cast(AWSConfiguration, self.environment.hyperscaler_configuration)

    def _pins(self, version: str) -> bool:
        return _VERSION_ID.fullmatch(version) is not None

    def _fetch(self, name: str, version: str | None) -> bytes:
        identifier = identifier_of(name, self._settings)
        if len(identifier) > _MAX_NAME:
            raise self._missing(name, version)
        wanted = {} if version is None else {"VersionId" if self._pins(version) else "VersionStage": version}
        with mapped_errors("the secret", name):
            store = client("secretsmanager", self._settings)
        try:
            answer = store.get_secret_value(SecretId=identifier, **wanted)
        except ClientError as error:
            problem = translate(error, "the secret", name)
            if isinstance(problem, NotFound) or code_of(error) == _DELETED:
                problem = self._missing(name, version)
            raise problem from error
        except BotoCoreError as error:
            raise translate(error, "the secret", name) from _without_content(error)
        return _value(answer, name)

    def _missing(self, name: str, version: str | None) -> NotFound:
        what = f"no {identifier_of(name, self._settings)!r} in {self._settings.region}"
        which = "" if version is None else f", or not in the version {version!r}"
        return NotFound(f"No secret {name!r}: AWS has {what}{which}.", resource=name)


def identifier_of(name: str, settings: AWSConfiguration) -> str:
    """Return a secret's name on AWS: ``{environment}/{name}``, other bytes than AWS allows escaped as ``=20``."""
    escaped = _ESCAPED.sub(lambda found: b"=%02X" % found[0][0], name.encode())
    return f"{settings.environment}/{escaped.decode()}"


def _value(answer: dict[str, Any], name: str) -> bytes:
    if "SecretString" in answer:
        return str(answer["SecretString"]).encode()
    if "SecretBinary" in answer:
        return bytes(answer["SecretBinary"])
    raise Unavailable(f"The answer of AWS for the secret {name!r} has no value.", resource=name)


def _without_content(error: BotoCoreError) -> BotoCoreError:
    # If the answer is truncated, the errors that caused this one contain the received part of the secret.
    error.__cause__ = error.__context__ = None
    error.kwargs = {}
    return error
