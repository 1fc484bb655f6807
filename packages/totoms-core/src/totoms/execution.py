"""What a delegate is given besides the request: who calls, and what it works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from totoms.environment import TotoEnvironment
from totoms.errors import ConfigurationError
from totoms.logging import TotoLogger

if TYPE_CHECKING:
    from totoms.auth import Authenticator
    from totoms.bus import MessageBus
    from totoms.config import TotoControllerConfig
    from totoms.storage import CloudStorage


@dataclass(slots=True)
class UserContext:
    """Who calls, as a verified token says. One per request.

    Attributes:
        email: The user; None only on a path that is open to callers without a token.
        auth_provider: Who vouches for it: ``toto``, ``google`` or the address of another issuer; "" for nobody.
    """

    email: str | None
    auth_provider: str = ""


@dataclass(slots=True)
class ExecutionContext:
    """What a delegate works with. One per request.

    Attributes:
        logger: ``exec_context.logger.log(exec_context.cid, "...")``.
        cid: The correlation id of the request.
        config: The service's loaded configuration.
        message_bus: To publish. (In a service without a message bus configuration it is None, which the annotation
            leaves out: whoever publishes has configured one.)
        environment: Where the service runs.
    """

    logger: TotoLogger
    cid: str
    config: TotoControllerConfig
    message_bus: MessageBus
    environment: TotoEnvironment

    def get_storage(self, bucket_name: str) -> CloudStorage:
        """Return the files of a bucket, on whatever hyperscaler the service runs.

        Args:
            bucket_name: The bucket's name, not a path.
        """
        from totoms.storage import CloudStorage  # storage loads what HTTP does not need

        return CloudStorage(bucket_name, self.logger, self.cid, environment=self.environment)


class Runtime(Protocol):
    """What the HTTP side needs of a microservice."""

    @property
    def service_name(self) -> str:
        """Names it in logs and in ``/health``."""
        ...

    @property
    def config(self) -> TotoControllerConfig:
        """The loaded configuration."""
        ...

    @property
    def logger(self) -> TotoLogger:
        """The service's logger."""
        ...

    @property
    def message_bus(self) -> MessageBus:
        """To publish; None without one."""
        ...

    @property
    def environment(self) -> TotoEnvironment:
        """Where it runs."""
        ...

    @property
    def authenticator(self) -> Authenticator:
        """Tells who calls."""
        ...

    @property
    def state(self) -> str:
        """One of "starting", "ready", "draining" and "stopped"."""
        ...


_default: Runtime | None = None


def set_default_runtime(runtime: Runtime | None) -> None:
    """Make `runtime` the one that delegates use where no app of ours is at hand. None forgets it."""
    global _default
    _default = runtime


def runtime_of(scope: Any) -> Runtime:
    """Return the microservice that a request came to.

    Args:
        scope: The ASGI scope of the request.

    Raises:
        ConfigurationError: The app is not a microservice's, and the process has no default microservice.
    """
    call = scope.get("totoms")
    runtime: Runtime | None
    if call is not None:
        runtime = call.runtime
    else:
        runtime = getattr(getattr(scope.get("app"), "state", None), "totoms", None) or _default
    if runtime is None:
        raise ConfigurationError(
            "A delegate was called outside a microservice: await TotoMicroservice.init(...) first."
        )
    return runtime
