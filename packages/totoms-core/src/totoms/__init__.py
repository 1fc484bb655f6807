"""totoms: declare a microservice once, run it unchanged on a laptop and on any cloud.

Everything a service needs is exported here; everything a plugin needs besides is in
:mod:`totoms.hookspecs`, :mod:`totoms.envelope` and :mod:`totoms.bus`.
"""

from typing import Any as _Any

from totoms import compat as _compat
from totoms import toplevel as _toplevel
from totoms.bus import MessageBus
from totoms.compat import determine_environment
from totoms.config import TotoControllerConfig
from totoms.configuration import (
    APIConfiguration,
    APIEndpoint,
    CORSConfiguration,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    OIDCIssuer,
    TotoMicroserviceConfiguration,
)
from totoms.delegate import toto_delegate
from totoms.envelope import DeadLetter, RetryPolicy
from totoms.environment import HyperscalerConfiguration, TotoEnvironment
from totoms.errors import (
    AccessDenied,
    BackendError,
    Closed,
    ConfigurationError,
    CorruptData,
    Forbidden,
    InvalidKey,
    LeaseLost,
    MessageTooLarge,
    NonRetryableError,
    NotFound,
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
from totoms.execution import ExecutionContext, UserContext
from totoms.handlers import TotoMessageHandler
from totoms.logging import TotoLogger
from totoms.messages import Delivery, MessageDestination, ProcessingResponse, ProcessingStatus, TotoMessage
from totoms.secrets import SecretsManager
from totoms.storage import CloudStorage

__version__ = "2.0.0"

__all__ = [
    "APIConfiguration",
    "APIEndpoint",
    "AccessDenied",
    "BackendError",
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
    "InvalidKey",
    "LeaseLost",
    "MessageBus",
    "MessageBusConfig",
    "MessageBusHandlerConfig",
    "MessageBusTopicConfig",
    "MessageDestination",
    "MessageTooLarge",
    "NonRetryableError",
    "NotFound",
    "OIDCIssuer",
    "PluginError",
    "PluginLoadError",
    "PluginNotFound",
    "PreconditionFailed",
    "ProcessingResponse",
    "ProcessingStatus",
    "RetryPolicy",
    "SecretsManager",
    "TotoControllerConfig",
    "TotoEnvironment",
    "TotoError",
    "TotoLogger",
    "TotoMessage",
    "TotoMessageHandler",
    "TotoMicroserviceConfiguration",
    "Unauthorized",
    "Unavailable",
    "Undecidable",
    "UndecodableMessage",
    "Unsupported",
    "UserContext",
    "ValidationError",
    "__version__",
    "determine_environment",
    "toto_delegate",
]


def __getattr__(name: str) -> _Any:
    # Names of totoms 1.x that live elsewhere or nowhere now; each says so.
    return _compat.lookup(name)


_toplevel.install()
_compat.install()
