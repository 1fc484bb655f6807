"""totoms: declare a microservice once, run it unchanged on a laptop and on any cloud.

Everything that a service needs is exported here; :mod:`totoms.plugin` exports what a plugin needs. A name is imported
when it is first used, so that the command line, which needs no HTTP, starts without FastAPI.
"""

import typing as _typing
from importlib import import_module as _import_module

from totoms import excepthook as _toplevel
from totoms.compat import loader as _compat
from totoms.plugins import loader as _plugins  # noqa: F401 - registers itself with totoms.environment

if _typing.TYPE_CHECKING:
    from totoms.auth.user import UserContext
    from totoms.compat.loader import determine_environment
    from totoms.controller_config import TotoControllerConfig
    from totoms.declaration.api import APIConfiguration, APIEndpoint, CORSConfiguration
    from totoms.declaration.issuers import OIDCIssuer
    from totoms.declaration.logging import LogConfiguration
    from totoms.declaration.messaging import MessageBusConfig, MessageBusHandlerConfig, MessageBusTopicConfig
    from totoms.declaration.requires import Requires
    from totoms.declaration.resources import Bucket, Resources
    from totoms.declaration.server import ServerConfiguration
    from totoms.declaration.service import TotoMicroserviceConfiguration
    from totoms.environment import TotoEnvironment
    from totoms.errors import (
        AccessDenied,
        BackendError,
        Closed,
        ConfigurationError,
        CorruptData,
        Forbidden,
        InsufficientScope,
        InvalidArgument,
        InvalidKey,
        LeaseLost,
        MessageTooLarge,
        NonRetryableError,
        NotFound,
        NotSerializable,
        PluginError,
        PluginLoadError,
        PluginNotFound,
        PreconditionFailed,
        TotoError,
        Unauthorized,
        Unavailable,
        Undecidable,
        UndecodableMessage,
        Unsupported,
        ValidationError,
    )
    from totoms.execution import ExecutionContext
    from totoms.http.access import public
    from totoms.http.context import current_user
    from totoms.http.delegate import toto_delegate
    from totoms.logging.logger import TotoLogger
    from totoms.messages.bus import MessageBus
    from totoms.messages.dead_letters import DeadLetter
    from totoms.messages.events import TotoEvent
    from totoms.messages.function_handler import toto_handler
    from totoms.messages.handler import TotoMessageHandler
    from totoms.messages.message import Delivery, MessageDestination, ProcessingResponse, ProcessingStatus, TotoMessage
    from totoms.messages.subscription import RetryPolicy
    from totoms.messages.upcast import upcast
    from totoms.plugins.configuration import HyperscalerConfiguration
    from totoms.secrets.manager import SecretsManager
    from totoms.service import TotoMicroservice
    from totoms.storage.storage import CloudStorage

__version__ = "2.0.0"

__all__ = [
    "APIConfiguration",
    "APIEndpoint",
    "AccessDenied",
    "BackendError",
    "Bucket",
    "CORSConfiguration",
    "Closed",
    "CloudStorage",
    "ConfigurationError",
    "CorruptData",
    "DeadLetter",
    "Delivery",
    "ExecutionContext",
    "Forbidden",
    "HyperscalerConfiguration",
    "InsufficientScope",
    "InvalidArgument",
    "InvalidKey",
    "LeaseLost",
    "LogConfiguration",
    "MessageBus",
    "MessageBusConfig",
    "MessageBusHandlerConfig",
    "MessageBusTopicConfig",
    "MessageDestination",
    "MessageTooLarge",
    "NonRetryableError",
    "NotFound",
    "NotSerializable",
    "OIDCIssuer",
    "PluginError",
    "PluginLoadError",
    "PluginNotFound",
    "PreconditionFailed",
    "ProcessingResponse",
    "ProcessingStatus",
    "Requires",
    "Resources",
    "RetryPolicy",
    "SecretsManager",
    "ServerConfiguration",
    "TotoControllerConfig",
    "TotoEnvironment",
    "TotoError",
    "TotoEvent",
    "TotoLogger",
    "TotoMessage",
    "TotoMessageHandler",
    "TotoMicroservice",
    "TotoMicroserviceConfiguration",
    "Unauthorized",
    "Unavailable",
    "Undecidable",
    "UndecodableMessage",
    "Unsupported",
    "UserContext",
    "ValidationError",
    "__version__",
    "current_user",
    "determine_environment",
    "public",
    "toto_delegate",
    "toto_handler",
    "upcast",
]

_NAMES: _typing.Final = {
    "auth.user": ("UserContext",),
    "compat.loader": ("determine_environment",),
    "controller_config": ("TotoControllerConfig",),
    "declaration.api": ("APIConfiguration", "APIEndpoint", "CORSConfiguration"),
    "declaration.issuers": ("OIDCIssuer",),
    "declaration.logging": ("LogConfiguration",),
    "declaration.messaging": ("MessageBusConfig", "MessageBusHandlerConfig", "MessageBusTopicConfig"),
    "declaration.requires": ("Requires",),
    "declaration.resources": ("Bucket", "Resources"),
    "declaration.server": ("ServerConfiguration",),
    "declaration.service": ("TotoMicroserviceConfiguration",),
    "environment": ("TotoEnvironment",),
    "errors": (
        "AccessDenied",
        "BackendError",
        "Closed",
        "ConfigurationError",
        "CorruptData",
        "Forbidden",
        "InsufficientScope",
        "InvalidArgument",
        "InvalidKey",
        "LeaseLost",
        "MessageTooLarge",
        "NonRetryableError",
        "NotFound",
        "NotSerializable",
        "PluginError",
        "PluginLoadError",
        "PluginNotFound",
        "PreconditionFailed",
        "TotoError",
        "Unauthorized",
        "Unavailable",
        "Undecidable",
        "UndecodableMessage",
        "Unsupported",
        "ValidationError",
    ),
    "execution": ("ExecutionContext",),
    "http.access": ("public",),
    "http.context": ("current_user",),
    "http.delegate": ("toto_delegate",),
    "logging.logger": ("TotoLogger",),
    "messages.bus": ("MessageBus",),
    "messages.dead_letters": ("DeadLetter",),
    "messages.events": ("TotoEvent",),
    "messages.function_handler": ("toto_handler",),
    "messages.handler": ("TotoMessageHandler",),
    "messages.message": ("Delivery", "MessageDestination", "ProcessingResponse", "ProcessingStatus", "TotoMessage"),
    "messages.subscription": ("RetryPolicy",),
    "messages.upcast": ("upcast",),
    "plugins.configuration": ("HyperscalerConfiguration",),
    "secrets.manager": ("SecretsManager",),
    "service": ("TotoMicroservice",),
    "storage.storage": ("CloudStorage",),
}
"""The names that each module has."""
_MODULES: _typing.Final = {name: module for module, names in _NAMES.items() for name in names}

if not _typing.TYPE_CHECKING:  # type checkers would believe that every name exists

    def __getattr__(name: str) -> _typing.Any:
        if name in _MODULES:
            found = globals()[name] = getattr(_import_module(f"totoms.{_MODULES[name]}"), name)
            return found
        # Names of totoms 1.x that moved or were removed.
        return _compat.lookup(name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


_toplevel.install()
_compat.install()
