"""Which routes a service's `is_path_excluded` opens to callers without a token."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from totoms.errors import ConfigurationError

if TYPE_CHECKING:
    from totoms.controller_config import TotoControllerConfig


class Exclusions:
    """Calls `is_path_excluded` once for each path template; with the method, if it takes a second argument.

    Args:
        config: The service's configuration.

    Raises:
        ConfigurationError: `is_path_excluded` is a coroutine function. A coroutine is true, so it would open every
            route.
    """

    def __init__(self, config: TotoControllerConfig) -> None:
        self._function: Any = config.is_path_excluded
        self._name = f"{type(config).__name__}.is_path_excluded"
        if inspect.iscoroutinefunction(self._function):
            raise ConfigurationError(f"{self._name} is a coroutine function: write `def`. It is called once, at start.")
        self._takes_method = _count_positional(self._function) > 1
        self._results: dict[tuple[str, ...], bool] = {}

    def excludes(self, path: str, method: str) -> bool:
        """Return whether a route is excluded from authentication.

        Args:
            path: The route's path template, with the base path.
            method: The method.

        Raises:
            ConfigurationError: `is_path_excluded` failed or did not return a bool.
        """
        arguments = (path, method) if self._takes_method else (path,)
        if arguments not in self._results:
            call = f"{self._name}({', '.join(map(repr, arguments))})"
            try:
                result = self._function(*arguments)
            except Exception as error:
                raise ConfigurationError(f"{call} failed for {method} {path}: {error!r}") from error
            if not isinstance(result, bool):
                if inspect.iscoroutine(result):
                    result.close()
                kind = type(result).__name__
                raise ConfigurationError(f"{call} returned a {kind} for {method} {path}: it must return a bool.")
            self._results[arguments] = result
        return self._results[arguments]


def _count_positional(function: Any) -> float:
    """Return how many positional arguments `function` accepts."""
    count = 0
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return float("inf")
        count += parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    return count
