"""Check the declared resources and load the service's configuration at start, and close it at the end."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from totoms.controller_config import AUDIENCE_SECRET, JWT_KEY_SECRET, TotoControllerConfig
from totoms.declaration.service import TotoMicroserviceConfiguration
from totoms.environment import TotoEnvironment
from totoms.errors import AccessDenied, BackendError, ConfigurationError, Unavailable
from totoms.excepthook import mark_logged
from totoms.logging.formats import DEFAULT_LEVEL_FIELD, identity
from totoms.logging.logger import TotoLogger
from totoms.logging.setup import adopt_servers
from totoms.secrets.manager import SecretsManager
from totoms.threads import run_in_thread, run_transfer

START_DEADLINE: Final = 30.0
"""Seconds for which a store that is unavailable is tried again at start."""
CLOSE_DEADLINE: Final = 10.0
"""Seconds that `TotoControllerConfig.close` may take."""
_PAUSE: Final = 1.0


def set_up_log(configuration: TotoMicroserviceConfiguration, environment: TotoEnvironment | None) -> None:
    """Name the service in all lines of the process, also in those of a server that runs it.

    Args:
        configuration: The service.
        environment: Where it runs, if that is known.
    """
    settings = environment and environment.hyperscaler_configuration
    level_field = getattr(settings, "log_level_field", DEFAULT_LEVEL_FIELD)
    identity.describe(configuration.service_name, configuration.version, level_field)
    adopt_servers(access=configuration.log.requests)


async def check_resources(
    configuration: TotoMicroserviceConfiguration, environment: TotoEnvironment, logger: TotoLogger
) -> None:
    """Check that the declared buckets, secrets and secrets of topics exist.

    A service whose declaration has no `resources` is not checked. What may not be read is only logged.

    Raises:
        ConfigurationError: Some do not exist, or their store did not answer. The message names all of them.
    """
    if configuration.resources is None:
        return
    problems = await find_resources(configuration, environment, logger)
    for problem in problems:
        if isinstance(problem, AccessDenied):
            logger.log("init", f"Cannot check whether it exists: {problem.message}", "WARNING")
    fatal = [problem.message for problem in problems if not isinstance(problem, AccessDenied)]
    if fatal:
        raise ConfigurationError(f"{configuration.service_name} cannot start: {' '.join(dict.fromkeys(fatal))}")


async def find_resources(
    configuration: TotoMicroserviceConfiguration,
    environment: TotoEnvironment,
    logger: TotoLogger,
    patience: float = START_DEADLINE,
) -> list[BackendError]:
    """Look up the declared buckets, secrets and secrets of topics, and return the errors of those not found.

    Args:
        configuration: The service.
        environment: Where to look.
        logger: The service's.
        patience: Seconds for which a store that is unavailable is asked again.
    """
    manager = SecretsManager(environment)
    resources, bus = configuration.resources, configuration.message_bus_configuration
    topics = bus.topics if bus else []
    secrets, buckets = (resources.secrets, resources.buckets) if resources is not None else ([], [])
    looks: list[Callable[[], Awaitable[object]]] = [
        *(partial(manager.get_secret_bytes_async, name) for name in secrets),
        *(partial(manager.topic_identifier_async, topic.secret, topic.logical_name) for topic in topics),
        *(partial(_find_bucket, bucket.name, environment, logger) for bucket in buckets),
    ]
    found = await asyncio.gather(*(_check(look, patience) for look in looks))
    return [problem for problem in found if problem is not None]


async def _check(look: Callable[[], Awaitable[object]], patience: float) -> BackendError | None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while True:
        try:
            await look()
        except Unavailable as error:
            if loop.time() + _PAUSE >= deadline:
                return error
            await asyncio.sleep(_PAUSE)
        except BackendError as error:
            return error
        else:
            return None


async def _find_bucket(name: str, environment: TotoEnvironment, logger: TotoLogger) -> None:
    from totoms.storage.storage import CloudStorage  # imported here because few services use storage

    def look() -> None:
        # Listing needs only the permissions to read files; a request for the bucket itself needs another one.
        next(iter(CloudStorage(name, logger, "init", environment=environment).iter_files()), None)

    await run_transfer(look)


async def load_config(
    configuration: TotoMicroserviceConfiguration, environment: TotoEnvironment, logger: TotoLogger
) -> TotoControllerConfig:
    """Create the service's configuration and load it.

    Raises:
        ConfigurationError: `load` is not a coroutine function.
        Exception: Any exception of `load`, which is logged unless it is a `TotoError` that says enough.
    """
    name = configuration.custom_config.__name__
    made = configuration.custom_config(environment)
    try:
        loading: Any = made.load()
        if not inspect.isawaitable(loading):
            raise ConfigurationError(f"{name}.load must be declared with 'async def'.")
        config: TotoControllerConfig = await loading or made
    except (BackendError, ConfigurationError):
        raise
    except Exception as error:
        logger.log("init", f"{configuration.service_name} cannot start: {name}.load() failed", "ERROR", error)
        mark_logged(error)
        raise
    if configuration.resources is not None:
        config._declared_buckets = frozenset(bucket.name for bucket in configuration.resources.buckets)
    if hint := forgotten_load(config):
        logger.log("init", hint, "WARNING")
    if not _takes_no_arguments(config.close):
        logger.log("init", f"{name}.close takes arguments, so it is not called when the service stops.", "WARNING")
    return config


def forgotten_load(config: TotoControllerConfig) -> str:
    """Return what to write if `config.load` did not await the method that it overrides, else ""."""
    if config._is_loaded:
        return ""
    return (
        f"{type(config).__name__}.load() does not 'await super().load()', so the secrets {JWT_KEY_SECRET!r} and "
        f"{AUDIENCE_SECRET!r} were not read."
    )


async def close_config(config: TotoControllerConfig, logger: TotoLogger) -> None:
    """Call the configuration's `close`, for at most `CLOSE_DEADLINE` seconds. A failure is only logged.

    A ``def`` runs in a thread. A `close` that takes arguments, as a subclass written for 1.5.0 may have, is not called.
    """
    close: Callable[[], Any] = config.close
    if not _takes_no_arguments(close):
        return
    try:
        async with asyncio.timeout(CLOSE_DEADLINE):
            result = close() if inspect.iscoroutinefunction(close) else await run_in_thread(close)
            if inspect.isawaitable(result):
                await result
    except Exception as error:
        logger.log("shutdown", f"{type(config).__name__}.close() failed", "ERROR", error)


def _takes_no_arguments(function: object) -> bool:
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):  # it needs an argument, or has no signature
        return False
    return True
