"""totoms: declare a microservice once, run it unchanged on a laptop and on any cloud.

Everything a service needs is exported here; everything a plugin needs besides is in
:mod:`totoms.hookspecs`, :mod:`totoms.envelope` and :mod:`totoms.bus`.
"""

import typing as _typing

from totoms import compat as _compat
from totoms import plugins as _plugins  # noqa: F401 - makes itself known to totoms.environment
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
from totoms.environment import TotoEnvironment
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
from totoms.service import TotoMicroservice
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
    "determine_environment",
    "toto_delegate",
]


if _typing.TYPE_CHECKING:
    from totoms.hyperscaler import HyperscalerConfiguration
else:  # a type checker would take it for a promise that every name exists

    def __getattr__(name: str) -> _typing.Any:
        if name == "HyperscalerConfiguration":  # only plugins need it, and it costs a tenth of importing all of this
            from totoms.hyperscaler import HyperscalerConfiguration

            return HyperscalerConfiguration
        # Names of totoms 1.x that live elsewhere or nowhere now; each says so.
        return _compat.lookup(name)


_toplevel.install()
_compat.install()
