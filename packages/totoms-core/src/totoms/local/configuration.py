"""Settings of the local backend."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import AliasChoices, Field, field_validator, model_validator

from totoms.environment import HyperscalerConfiguration
from totoms.errors import ConfigurationError


class LocalConfiguration(HyperscalerConfiguration):
    """Where the local backend keeps its data. Constructing it does no I/O.

    Attributes:
        root: The folder; ``TOTOMS_LOCAL_ROOT``, by default ``.totoms`` in the working directory. Made absolute.
        environment: ``ENVIRONMENT``, by default ``dev``; ``prod`` is refused.
    """

    default_host: ClassVar[str] = "127.0.0.1"

    root: Path = Field(default=Path(".totoms"), validation_alias=AliasChoices("root", "TOTOMS_LOCAL_ROOT"), validate_default=True)
    environment: str = Field(default="dev", validation_alias=AliasChoices("environment", "ENVIRONMENT"))

    @field_validator("root")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.absolute()

    @model_validator(mode="after")
    def _not_in_production(self) -> LocalConfiguration:
        if self.environment.strip().lower() == "prod":
            raise ConfigurationError("The local backend is not for production: ENVIRONMENT is prod. Set HYPERSCALER.")
        return self
