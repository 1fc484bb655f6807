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
        push_service_account: ``GCP_PUSH_SERVICE_ACCOUNT``: the email of the service account as which Pub/Sub pushes.
            Without it nothing that is pushed is accepted.
        push_audience: ``GCP_PUSH_AUDIENCE``: the audience of the tokens with which Pub/Sub pushes; by default the
            address of the push endpoint, where the service knows it.
    """

    project_id: str = Field(
        min_length=1, validation_alias=AliasChoices("project_id", "GCP_PID", "GOOGLE_CLOUD_PROJECT")
    )
    environment: str = Field(default="dev", min_length=1, validation_alias=AliasChoices("environment", "ENVIRONMENT"))
    push_service_account: str = Field(
        default="", validation_alias=AliasChoices("push_service_account", "GCP_PUSH_SERVICE_ACCOUNT")
    )
    push_audience: str = Field(default="", validation_alias=AliasChoices("push_audience", "GCP_PUSH_AUDIENCE"))
