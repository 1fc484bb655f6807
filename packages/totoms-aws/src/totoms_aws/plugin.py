"""The hooks of the AWS plugin. Each imports its class only when it is called."""

from __future__ import annotations

from totoms.plugin import CloudStorage, HyperscalerConfiguration, MessageBus, SecretsManager, hookimpl


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
    from totoms_aws.storage.storage import S3CloudStorage

    return S3CloudStorage


@hookimpl
def totoms_message_bus() -> type[MessageBus]:
    """SNS and SQS."""
    from totoms_aws.messages.bus import AWSMessageBus

    return AWSMessageBus
