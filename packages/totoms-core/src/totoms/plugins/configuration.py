"""The base class of a hyperscaler's settings. Imported with a plugin, not by ``import totoms``."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from totoms.secrets.trimming import strip_ends


class HyperscalerConfiguration(BaseSettings):
    """The settings of a hyperscaler, a pydantic-settings model.

    A plugin's subclass names the environment variable of each field
    (``Field(validation_alias=AliasChoices("region", "AWS_REGION"))``). Arguments take precedence over the environment.
    White space around a value is ignored, with a warning.
    """

    default_host: ClassVar[str] = "0.0.0.0"  # noqa: S104 - for containers, where the platform controls access
    """The address a service listens on by default."""

    signed_urls_path: ClassVar[str] = ""
    """The path at which the service itself answers signed URLs, by `CloudStorage._answer_signed`; empty if the store
    has its own server."""

    log_level_field: ClassVar[str] = "severity"
    """How the hyperscaler's log store calls the level of a JSON line: ``severity``, ``level``, ..."""

    model_config = SettingsConfigDict(
        extra="ignore", frozen=True, populate_by_name=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    @model_validator(mode="before")
    @classmethod
    def _strip_ends(cls, values: Any) -> Any:
        """Strip white space around values, with a warning that names the field and its variable."""
        if not isinstance(values, dict):
            return values
        return {
            name: strip_ends(value, f"{cls.__name__}.{name}{cls._variables_of(name)}")
            if isinstance(value, str)
            else value
            for name, value in values.items()
        }

    @classmethod
    def _variables_of(cls, name: str) -> str:
        for field in cls.model_fields.values():
            choices = getattr(field.validation_alias, "choices", ())
            if name in choices:
                return f" ({', '.join(choice for choice in choices if choice != name)})"
        return ""
