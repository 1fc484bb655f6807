"""Settings of the AWS backend. Credentials and endpoints are settings of the SDK."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

from pydantic import AliasChoices, Field, field_validator

from totoms.errors import ConfigurationError
from totoms.plugin import HyperscalerConfiguration

# boto3 accepts any valid host label.
_REGION: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
# Secrets Manager allows these characters in names.
_ENVIRONMENT: Final = re.compile(r"[A-Za-z0-9/_+=.@-]{1,64}")


class AWSConfiguration(HyperscalerConfiguration):
    """Region and environment of the service: ``AWSConfiguration("eu-north-1", "prod")``. Constructing it does no I/O.

    Credentials, profiles, roles and ``AWS_ENDPOINT_URL`` are read by boto3
    (https://docs.aws.amazon.com/boto3/latest/guide/configuration.html).

    Attributes:
        region: ``AWS_REGION``, else ``AWS_DEFAULT_REGION``, by default ``eu-north-1``.
        environment: ``ENVIRONMENT``, by default ``dev``. The names of secrets begin with it.

    Raises:
        ConfigurationError: A setting is empty or malformed.
    """

    # As in https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-logformat.html
    log_level_field: ClassVar[str] = "level"

    region: str = Field(
        default="eu-north-1", validation_alias=AliasChoices("region", "AWS_REGION", "AWS_DEFAULT_REGION")
    )
    environment: str = Field(default="dev", validation_alias=AliasChoices("environment", "ENVIRONMENT"))

    def __init__(self, *given: str, **settings: Any) -> None:
        # 1.5.0 took these by position.
        super().__init__(**dict(zip(("region", "environment")[: len(given)], given, strict=True)), **settings)

    @field_validator("region", mode="before")
    @classmethod
    def _is_region(cls, value: Any) -> Any:
        return _matching(_REGION, value, "region (AWS_REGION) is not an AWS region such as eu-north-1.")

    @field_validator("environment", mode="before")
    @classmethod
    def _is_environment(cls, value: Any) -> Any:
        return _matching(
            _ENVIRONMENT, value, "environment (ENVIRONMENT) must be 1 to 64 letters, digits and any of / _ + = . @ -."
        )


def _matching(pattern: re.Pattern[str], value: Any, problem: str) -> Any:
    # Not a pydantic error: code that builds the configuration gets a ConfigurationError, too.
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ConfigurationError(f"AWSConfiguration: {problem}")
    return value
