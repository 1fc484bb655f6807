"""The settings: the servers, the credentials, and the prefix of names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator

from totoms.plugin import HyperscalerConfiguration


class NatsConfiguration(HyperscalerConfiguration):
    """How to reach NATS. Constructing it does no I/O.

    Attributes:
        url: ``NATS_URL``; one server, or several separated by commas; ``nats://`` or ``tls://``.
        user: ``NATS_USER``.
        password: ``NATS_PASSWORD``.
        token: ``NATS_TOKEN``, where the servers ask for one instead of a user.
        tls_ca: ``NATS_TLS_CA``; a file with the certificate authority that the servers are verified with.
        tls_cert: ``NATS_TLS_CERT``; a file with the certificate of the service, where the servers ask for one.
        tls_key: ``NATS_TLS_KEY``; the file with its key.
        prefix: ``NATS_PREFIX``; what the names of streams and buckets begin with, so that several installations can
            share one account. The subjects of topics have no prefix.
        replicas: ``NATS_REPLICAS``; of the streams that the service makes. More than one needs as many servers.
        lease_seconds: ``NATS_LEASE_SECONDS``; how long a message is leased, where the service makes the consumer. The
            core renews the leases of messages that are being handled.
    """

    url: str = Field(default="nats://127.0.0.1:4222", validation_alias=AliasChoices("url", "NATS_URL"))
    user: str | None = Field(default=None, validation_alias=AliasChoices("user", "NATS_USER"))
    password: SecretStr | None = Field(default=None, validation_alias=AliasChoices("password", "NATS_PASSWORD"))
    token: SecretStr | None = Field(default=None, validation_alias=AliasChoices("token", "NATS_TOKEN"))
    tls_ca: Path | None = Field(default=None, validation_alias=AliasChoices("tls_ca", "NATS_TLS_CA"))
    tls_cert: Path | None = Field(default=None, validation_alias=AliasChoices("tls_cert", "NATS_TLS_CERT"))
    tls_key: Path | None = Field(default=None, validation_alias=AliasChoices("tls_key", "NATS_TLS_KEY"))
    prefix: str = Field(
        default="", pattern="^[A-Za-z0-9]{0,32}$", validation_alias=AliasChoices("prefix", "NATS_PREFIX")
    )
    replicas: int = Field(default=1, ge=1, le=5, validation_alias=AliasChoices("replicas", "NATS_REPLICAS"))
    lease_seconds: float = Field(
        default=30.0, ge=0.5, le=3600, validation_alias=AliasChoices("lease_seconds", "NATS_LEASE_SECONDS")
    )

    @field_validator("url")
    @classmethod
    def _servers(cls, value: str) -> str:
        for server in value.split(","):
            parts = urlsplit(server.strip())
            if parts.scheme not in ("nats", "tls") or not parts.hostname:
                raise ValueError("must be nats://host:port or tls://host:port, several separated by commas")
            if parts.username is not None or parts.password is not None:  # a URL is shown in logs
                raise ValueError("must contain no user or password: set NATS_USER and NATS_PASSWORD")
        return value

    @property
    def servers(self) -> list[str]:
        """The addresses, one by one."""
        return [server.strip() for server in self.url.split(",")]
