"""totoms: declare a microservice once, run it unchanged on a laptop and on any cloud.

Everything that a service needs is exported here; :mod:`totoms.plugin` exports what a plugin needs.
"""

import typing as _typing

from totoms import excepthook as _toplevel
from totoms.auth.user import UserContext
from totoms.compat import loader as _compat
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
from totoms.plugins import loader as _plugins  # noqa: F401 - registers itself with totoms.environment
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


if _typing.TYPE_CHECKING:
    from totoms.plugins.configuration import HyperscalerConfiguration
else:  # hidden from type checkers, which would believe that every name exists

    def __getattr__(name: str) -> _typing.Any:
        if name == "HyperscalerConfiguration":  # for plugins only; it takes a tenth of the time of `import totoms`
            from totoms.plugins.configuration import HyperscalerConfiguration

            return HyperscalerConfiguration
        # Names of totoms 1.x that moved or were removed.
        return _compat.lookup(name)


_toplevel.install()
_compat.install()
