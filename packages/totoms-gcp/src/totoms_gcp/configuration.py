"""Settings of the Google Cloud backend. Credentials and emulators are settings of the SDK."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

from pydantic import AliasChoices, Field, ValidationInfo, field_validator

from totoms.errors import ConfigurationError
from totoms.plugin import HyperscalerConfiguration

# An id, with or without a domain before it, or a number: what is safe in a path.
_PROJECT: Final = re.compile(r"[a-z0-9](?:[a-z0-9.:-]{0,98}[a-z0-9])?")
_ENDPOINT: Final = re.compile(r"[a-z0-9.-]{4,253}(?::[0-9]{1,5})?")
_LOCATION: Final = re.compile(r"[a-z0-9-]{2,63}")


def _setting(name: str, variable: str) -> Any:
    return Field(default="", validation_alias=AliasChoices(name, variable))


class GCPConfiguration(HyperscalerConfiguration):
    """The project in which the service runs: ``GCPConfiguration("my-project")``. Constructing it does no I/O.

    Credentials are the application default ones
    (https://cloud.google.com/docs/authentication/application-default-credentials). ``PUBSUB_EMULATOR_HOST`` and
    ``STORAGE_EMULATOR_HOST``, which the SDK reads, and totoms' own ``SECRET_MANAGER_EMULATOR_HOST`` name emulators.

    Attributes:
        project_id: ``GCP_PID``, else ``GOOGLE_CLOUD_PROJECT``.
        environment: ``ENVIRONMENT``, by default ``dev``.
        push_service_account: ``GCP_PUSH_SERVICE_ACCOUNT``: the email of the service account that Pub/Sub pushes as.
            Without it no push is accepted.
        push_audience: ``GCP_PUSH_AUDIENCE``: the audience of the tokens that Pub/Sub pushes with; by default the
            address of the push endpoint, where the service knows it.
        pubsub_endpoint: ``GCP_PUBSUB_ENDPOINT``: a locational endpoint of Pub/Sub, such as
            ``europe-west1-pubsub.googleapis.com:443``; by default the global one
            (https://cloud.google.com/pubsub/docs/reference/service_apis_overview#pubsub_endpoints).
        secrets_location: ``GCP_SECRETS_LOCATION``: where regional secrets are, such as ``europe-west1``; by default
            secrets are global (https://cloud.google.com/secret-manager/regional-secrets/regional-secrets-overview).

    Raises:
        ConfigurationError: There is no project, or its id is not valid.
    """

    # https://cloud.google.com/logging/docs/structured-logging#structured_logging_special_fields
    log_level_field: ClassVar[str] = "severity"

    project_id: str = Field(
        default="",
        validation_alias=AliasChoices("project_id", "GCP_PID", "GOOGLE_CLOUD_PROJECT"),
        validate_default=True,
    )
    environment: str = Field(default="dev", min_length=1, validation_alias=AliasChoices("environment", "ENVIRONMENT"))
    push_service_account: str = _setting("push_service_account", "GCP_PUSH_SERVICE_ACCOUNT")
    push_audience: str = _setting("push_audience", "GCP_PUSH_AUDIENCE")
    pubsub_endpoint: str = _setting("pubsub_endpoint", "GCP_PUBSUB_ENDPOINT")
    secrets_location: str = _setting("secrets_location", "GCP_SECRETS_LOCATION")

    def __init__(self, *given: str, **settings: Any) -> None:
        # 1.5.0 took these by position.
        super().__init__(**dict(zip(("project_id", "environment")[: len(given)], given, strict=True)), **settings)

    @field_validator("pubsub_endpoint", "secrets_location", mode="after")
    @classmethod
    def _check_place(cls, value: str, info: ValidationInfo) -> str:
        pattern = _ENDPOINT if info.field_name == "pubsub_endpoint" else _LOCATION
        if value and not pattern.fullmatch(value):
            what = "a host, such as europe-west1-pubsub.googleapis.com:443" if pattern is _ENDPOINT else "a location"
            raise ConfigurationError(f"GCPConfiguration: {info.field_name} must be {what}.")
        return value

    @field_validator("project_id", mode="before")
    @classmethod
    def _check_project(cls, value: Any) -> Any:
        # Not a pydantic error: code that builds the configuration gets a ConfigurationError, too.
        if not value:
            raise ConfigurationError("GCPConfiguration: there is no project: set GCP_PID to the project's id.")
        if not isinstance(value, str) or not _PROJECT.fullmatch(value):
            raise ConfigurationError("GCPConfiguration: project_id (GCP_PID) is not a valid project id.")
        return value
