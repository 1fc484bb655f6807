"""Settings of the Google Cloud backend. Credentials and emulators are the SDK's own affair and settings."""

from __future__ import annotations

from pydantic import AliasChoices, Field

from totoms.hyperscaler import HyperscalerConfiguration


class GCPConfiguration(HyperscalerConfiguration):
    """In which project the service runs. Constructing it does no I/O.

    Credentials are the application default ones (https://cloud.google.com/docs/authentication/application-default-credentials);
    ``PUBSUB_EMULATOR_HOST`` and ``STORAGE_EMULATOR_HOST`` are read by the SDK.

    Attributes:
        project_id: ``GCP_PID``, else ``GOOGLE_CLOUD_PROJECT``.
        environment: ``ENVIRONMENT``, by default ``dev``.
    """

    project_id: str = Field(
        min_length=1, validation_alias=AliasChoices("project_id", "GCP_PID", "GOOGLE_CLOUD_PROJECT")
    )
    environment: str = Field(default="dev", min_length=1, validation_alias=AliasChoices("environment", "ENVIRONMENT"))
