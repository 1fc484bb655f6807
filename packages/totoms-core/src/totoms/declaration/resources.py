"""The buckets and secrets that a service declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
from pydantic import Field

from totoms.declaration.base import Declaration, refuse_duplicates
from totoms.errors import ConfigurationError, InvalidKey
from totoms.names import check_bucket_name, check_secret_name


@dataclass(frozen=True)
class Bucket:
    """A bucket that the service reads or writes.

    Attributes:
        name: Its name, as for ``get_storage``; on Azure that of a container.

    Raises:
        ConfigurationError: No cloud accepts the name.
    """

    name: str

    def __post_init__(self) -> None:
        try:
            check_bucket_name(self.name)
        except InvalidKey as error:
            raise ConfigurationError(f"Bucket.name: {error.message}") from None


def _is_bucket(value: Any) -> Any:
    if not isinstance(value, Bucket):
        raise ValueError('must be a Bucket, such as Bucket("blog-files")')
    return value


def _secret_name(value: str) -> str:
    try:
        return check_secret_name(value)
    except InvalidKey as error:
        raise ValueError(error.message) from None


class Resources(Declaration):
    """The buckets and secrets that a service uses. They are checked when it starts, all at once.

    Attributes:
        buckets: The buckets.
        secrets: The names of the secrets, without those of topics and those that every service may have.
    """

    buckets: list[Annotated[Bucket, pydantic.BeforeValidator(_is_bucket)]] = Field(default_factory=list)
    secrets: list[Annotated[str, pydantic.AfterValidator(_secret_name)]] = Field(default_factory=list)

    @pydantic.field_validator("buckets", "secrets", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return [] if value is None else value

    @pydantic.field_validator("buckets")
    @classmethod
    def _distinct_buckets(cls, value: list[Bucket]) -> list[Bucket]:
        refuse_duplicates("bucket", [bucket.name for bucket in value])
        return value

    @pydantic.field_validator("secrets")
    @classmethod
    def _distinct_secrets(cls, value: list[str]) -> list[str]:
        refuse_duplicates("secret", value)
        return value
