"""Settings of the AWS backend. Credentials and endpoints are the SDK's own affair and settings."""

from __future__ import annotations

from pydantic import AliasChoices, Field

from totoms.hyperscaler import HyperscalerConfiguration


class AWSConfiguration(HyperscalerConfiguration):
    """Where on AWS the service runs. Constructing it does no I/O.

    Credentials, profiles, roles and ``AWS_ENDPOINT_URL`` are read by boto3
    (https://docs.aws.amazon.com/boto3/latest/guide/configuration.html).

    Attributes:
        region: ``AWS_REGION``, else ``AWS_DEFAULT_REGION``, by default ``eu-north-1``.
        environment: ``ENVIRONMENT``, by default ``dev``. What secrets' names begin with.
    """

    region: str = Field(
        default="eu-north-1", min_length=1, validation_alias=AliasChoices("region", "AWS_REGION", "AWS_DEFAULT_REGION")
    )
    environment: str = Field(default="dev", min_length=1, validation_alias=AliasChoices("environment", "ENVIRONMENT"))
