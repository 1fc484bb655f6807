"""What the entry point names: the classes that implement totoms on AWS, each imported when it is asked for."""

from __future__ import annotations

from totoms.bus import MessageBus
from totoms.hookspecs import hookimpl
from totoms.hyperscaler import HyperscalerConfiguration
from totoms.secrets import SecretsManager
from totoms.storage import CloudStorage


@hookimpl
def totoms_configuration() -> type[HyperscalerConfiguration]:
    """Region and environment."""
    from totoms_aws.configuration import AWSConfiguration

    return AWSConfiguration


@hookimpl
def totoms_secrets_manager() -> type[SecretsManager]:
    """Secrets Manager."""
    from totoms_aws.secrets import AWSSecretsManager

    return AWSSecretsManager


@hookimpl
def totoms_cloud_storage() -> type[CloudStorage]:
    """S3."""
    from totoms_aws.storage import S3CloudStorage

    return S3CloudStorage


@hookimpl
def totoms_message_bus() -> type[MessageBus]:
    """SNS and SQS."""
    from totoms_aws.bus import AWSMessageBus

    return AWSMessageBus
