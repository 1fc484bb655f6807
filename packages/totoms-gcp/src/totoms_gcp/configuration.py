"""Settings of the Google Cloud backend. Credentials and emulators are the SDK's own affair and settings."""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import AliasChoices, Field, field_validator

from totoms.errors import ConfigurationError
from totoms.hyperscaler import HyperscalerConfiguration

# An id, with or without a domain before it, or a number: what is safe in a path.
_PROJECT: Final = re.compile(r"[a-z0-9](?:[a-z0-9.:-]{0,98}[a-z0-9])?")


class GCPConfiguration(HyperscalerConfiguration):
    """In which project the service runs: ``GCPConfiguration("my-project")``. Constructing it does no I/O.

    Credentials are the application default ones
    (https://cloud.google.com/docs/authentication/application-default-credentials). ``PUBSUB_EMULATOR_HOST``,
    ``STORAGE_EMULATOR_HOST`` and, of our own making, ``SECRET_MANAGER_EMULATOR_HOST`` name emulators.

    Attributes:
        project_id: ``GCP_PID``, else ``GOOGLE_CLOUD_PROJECT``.
        environment: ``ENVIRONMENT``, by default ``dev``.
        push_service_account: ``GCP_PUSH_SERVICE_ACCOUNT``: the email of the service account as which Pub/Sub pushes.
            Without it nothing that is pushed is accepted.
        push_audience: ``GCP_PUSH_AUDIENCE``: the audience of the tokens with which Pub/Sub pushes; by default the
            address of the push endpoint, where the service knows it.

    Raises:
        ConfigurationError: There is no project, or it is nothing that could be one.
    """

    project_id: str = Field(
        default="", validation_alias=AliasChoices("project_id", "GCP_PID", "GOOGLE_CLOUD_PROJECT"),
        validate_default=True,
    )  # fmt: skip
    environment: str = Field(default="dev", min_length=1, validation_alias=AliasChoices("environment", "ENVIRONMENT"))
    push_service_account: str = Field(
        default="", validation_alias=AliasChoices("push_service_account", "GCP_PUSH_SERVICE_ACCOUNT")
    )
    push_audience: str = Field(default="", validation_alias=AliasChoices("push_audience", "GCP_PUSH_AUDIENCE"))

    def __init__(self, *given: str, **settings: Any) -> None:
        # In order, as 1.5.0 took them.
        super().__init__(**dict(zip(("project_id", "environment")[: len(given)], given, strict=True)), **settings)

    @field_validator("project_id", mode="before")
    @classmethod
    def _is_project(cls, value: Any) -> Any:
        # Raised as it is, not as pydantic's: by hand, too, it is a service that cannot start.
        if not value:
            raise ConfigurationError("GCPConfiguration: there is no project: set GCP_PID to the project's id.")
        if not isinstance(value, str) or not _PROJECT.fullmatch(value):
            raise ConfigurationError("GCPConfiguration: project_id (GCP_PID) is no id of a project.")
        return value
