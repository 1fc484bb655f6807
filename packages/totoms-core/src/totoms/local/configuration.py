"""Settings of the local backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pydantic
from pydantic import AliasChoices, Field, field_validator, model_validator

from totoms.errors import ConfigurationError
from totoms.plugins.configuration import HyperscalerConfiguration


class LocalConfiguration(HyperscalerConfiguration):
    """Where the local backend keeps its data. Constructing it does no I/O.

    Attributes:
        root: The folder, made absolute; ``TOTOMS_LOCAL_ROOT``, by default ``.totoms`` in the working directory.
        environment: ``ENVIRONMENT``, by default ``dev``; ``prod`` and ``production`` are refused.

    Raises:
        ConfigurationError: A value is invalid, or the environment is production.
    """

    default_host: ClassVar[str] = "127.0.0.1"
    signed_urls_path: ClassVar[str] = "/_files"

    root: Path = Field(
        default=Path(".totoms"), validation_alias=AliasChoices("root", "TOTOMS_LOCAL_ROOT"), validate_default=True
    )
    environment: str = Field(default="dev", validation_alias=AliasChoices("environment", "ENVIRONMENT"))

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except pydantic.ValidationError as error:
            problems = error.errors(include_input=False, include_url=False, include_context=False)
            text = "; ".join(f"{problem['loc'][0] if problem['loc'] else ''}: {problem['msg']}" for problem in problems)
            raise ConfigurationError(f"LocalConfiguration.{text}.") from None

    @field_validator("root")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        if "\0" in str(value):
            raise ValueError("must be a path")
        return value.absolute()

    @model_validator(mode="after")
    def _not_in_production(self) -> LocalConfiguration:
        if self.environment.strip().lower() in ("prod", "production"):
            raise ConfigurationError(
                f"The local backend is for development, and ENVIRONMENT is {self.environment.strip().lower()}: "
                "choose a cloud with HYPERSCALER."
            )
        return self
