"""The settings of a hyperscaler: what a plugin subclasses. Loaded when a plugin is, not by ``import totoms``."""

from __future__ import annotations

from typing import ClassVar

from pydantic_settings import BaseSettings, SettingsConfigDict


class HyperscalerConfiguration(BaseSettings):
    """Base of each hyperscaler's settings, a pydantic-settings model.

    A plugin subclasses it and gives every field the environment variable it is read from
    (``Field(validation_alias=AliasChoices("region", "AWS_REGION"))``). Arguments win over the environment.
    """

    default_host: ClassVar[str] = "0.0.0.0"  # noqa: S104 - in a container, where the platform is the gate
    """The address a service listens on unless `start` is told another."""

    signed_urls_path: ClassVar[str] = ""
    """Where a service answers the backend's signed URLs itself, by `CloudStorage._answer_signed`. Empty: nowhere, as
    the store has a server of its own."""

    model_config = SettingsConfigDict(
        extra="ignore", frozen=True, populate_by_name=True, hide_input_in_errors=True, env_ignore_empty=True
    )
