"""The names of totoms 1.5.0, and where each is now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NAMES: Final[Mapping[str, str]] = {
    **{
        name: f"totoms:{name}"
        for name in (
            "APIConfiguration",
            "APIEndpoint",
            "CloudStorage",
            "ExecutionContext",
            "MessageBusConfig",
            "MessageBusHandlerConfig",
            "MessageBusTopicConfig",
            "MessageDestination",
            "ProcessingResponse",
            "ProcessingStatus",
            "SecretsManager",
            "TotoControllerConfig",
            "TotoEnvironment",
            "TotoLogger",
            "TotoMessage",
            "TotoMessageHandler",
            "TotoMicroservice",
            "TotoMicroserviceConfiguration",
            "UserContext",
            "ValidationError",
            "toto_delegate",
        )
    },
    "CloudStorageFactory": "totoms.compat.loader:CloudStorageFactory",
    "Environment": "builtins:str",
    "HTTPMethod": "http:HTTPMethod",
    "Hyperscaler": "builtins:str",
    "MessageBusConfigType": "totoms:MessageBusConfig",
    "MessageBusConfiguration": "totoms:MessageBusConfig",
    "TotoMessageBus": "totoms:MessageBus",
    "determine_environment": "totoms:determine_environment",
    "determine_envrionment": "totoms:determine_environment",
    "new_toto_service_token": "totoms.auth.tokens:new_toto_service_token",
    "singleton": "totoms.compat.loader:singleton",
}
"""Old names, with the module and attribute of each now."""

SETTINGS: Final[Mapping[str, str]] = {
    "AWSConfiguration": "aws",
    "GCPConfiguration": "gcp",
    "AzureConfiguration": "azure",
}
"""Old names of settings, with the plugin of each now."""

_AGENTS: Final = "Gale agents are not part of totoms 2; write the agent's endpoint as a delegate."
_CONTROLLER: Final = "the FastAPI app is TotoMicroservice.app, and endpoints are declared in APIConfiguration."
_TOKENS: Final = "tokens are verified by the service before a delegate runs; see oidc_issuers of APIConfiguration."
_BUS: Final = "a message bus is created from MessageBusConfig; use totoms.MessageBus in annotations."
_FILES: Final = "use totoms.CloudStorage('bucket'), which returns the implementation of the hyperscaler."

GONE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("APIControllerOptions", "APIControllerProps", "PathOptions", "TotoAPIController"), _CONTROLLER),
    **dict.fromkeys(
        (
            "AgentConversationMessage",
            "AgentEndpoint",
            "AgentManifest",
            "AgentsConfiguration",
            "GaleAgent",
            "GaleBrokerAPI",
            "GaleConversationalAgent",
            "MessageExtras",
            "RegisterAgentRequest",
            "RegisterAgentResponse",
            "StreamInfo",
        ),
        _AGENTS,
    ),
    **dict.fromkeys(
        (
            "TokenVerificationResult",
            "TotoTokenVerifier",
            "ValidationResult",
            "extract_info",
            "throw_validation_error",
            "validate_request",
        ),
        _TOKENS,
    ),
    **dict.fromkeys(
        (
            "GCPPubSubMessageBus",
            "IMessageBus",
            "IPubSub",
            "IQueue",
            "MessageHandlerRegistration",
            "MessageHandlerRegistrationOptions",
            "SNSMessageBus",
            "TopicIdentifier",
        ),
        _BUS,
    ),
    **dict.fromkeys(("GCSImpl", "S3Impl"), _FILES),
}
"""Old names without a successor, with what to do instead."""

MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "TotoDelegateDecorator": ("toto_delegate", "extract_info", "validate_request", "throw_validation_error"),
    "TotoLogger": ("TotoLogger",),
    "TotoMicroservice": (
        "TotoMicroservice",
        "TotoMicroserviceConfiguration",
        "APIConfiguration",
        "APIEndpoint",
        "MessageBusConfig",
        "MessageBusHandlerConfig",
        "MessageBusTopicConfig",
        "determine_environment",
    ),
    "TotoTokenVerifier": ("TotoTokenVerifier", "TokenVerificationResult"),
    "api": ("TotoAPIController", "HTTPMethod", "APIControllerProps", "APIControllerOptions"),
    "api.APIControllerOptions": ("APIControllerOptions",),
    "api.APIControllerProps": ("APIControllerProps",),
    "api.TotoAPIController": ("TotoAPIController", "HTTPMethod"),
    "auth.TotoToken": ("new_toto_service_token",),
    "evt": (
        "TotoMessageBus",
        "MessageHandlerRegistration",
        "IMessageBus",
        "IPubSub",
        "IQueue",
        "MessageBusConfiguration",
        "TopicIdentifier",
        "MessageHandlerRegistrationOptions",
        "TotoMessage",
        "TotoMessageHandler",
        "ProcessingResponse",
        "ProcessingStatus",
        "MessageDestination",
    ),
    "evt.Interfaces": ("IMessageBus", "IPubSub", "IQueue"),
    "evt.MessageBusConfig": ("MessageBusConfiguration", "TopicIdentifier", "MessageHandlerRegistrationOptions"),
    "evt.MessageDestination": ("MessageDestination",),
    "evt.TotoMessage": ("TotoMessage",),
    "evt.TotoMessageBus": ("TotoMessageBus", "MessageHandlerRegistration"),
    "evt.TotoMessageHandler": ("TotoMessageHandler", "ProcessingResponse", "ProcessingStatus"),
    "evt.impl": ("SNSMessageBus", "GCPPubSubMessageBus"),
    "evt.impl.GCPPubSub": ("GCPPubSubMessageBus",),
    "evt.impl.SNS": ("SNSMessageBus",),
    "gale": (),
    "gale.agent": (),
    "gale.agent.GaleAgent": ("GaleAgent",),
    "gale.agent.GaleConversationalAgent": ("GaleConversationalAgent",),
    "gale.integration": (),
    "gale.integration.GaleBrokerAPI": ("GaleBrokerAPI", "RegisterAgentRequest", "RegisterAgentResponse"),
    "gale.model": (),
    "gale.model.AgentConversationMessage": ("AgentConversationMessage", "StreamInfo", "MessageExtras"),
    "gale.model.AgentEndpoint": ("AgentEndpoint",),
    "gale.model.AgentManifest": ("AgentManifest",),
    "model": (
        "APIEndpoint",
        "TotoControllerConfig",
        "TotoEnvironment",
        "AWSConfiguration",
        "GCPConfiguration",
        "AzureConfiguration",
        "Hyperscaler",
        "PathOptions",
        "UserContext",
        "ExecutionContext",
    ),
    "model.AgentsConfiguration": ("AgentsConfiguration",),
    "model.ExecutionContext": ("ExecutionContext",),
    "model.Hyperscaler": ("Hyperscaler",),
    "model.PathOptions": ("PathOptions",),
    "model.TotoAPIEndpoint": ("APIEndpoint",),
    "model.TotoConfig": ("TotoControllerConfig",),
    "model.TotoEnvironment": (
        "TotoEnvironment",
        "AWSConfiguration",
        "GCPConfiguration",
        "AzureConfiguration",
        "Environment",
    ),
    "model.UserContext": ("UserContext",),
    "model.ValidationResult": ("ValidationResult",),
    "model.exceptions": (),
    "model.exceptions.ValidationError": ("ValidationError",),
    "model.singleton": ("singleton",),
    "secrets.SecretsManager": ("SecretsManager",),
    "storage.AWS": ("S3Impl",),
    "storage.CloudStorage": ("CloudStorage",),
    "storage.CloudStorageFactory": ("CloudStorageFactory",),
    "storage.GCP": ("GCSImpl",),
}
"""Old modules of `totoms`, with the names that each defined. `_find` finds names of NAMES in any of them."""
