"""The harness that the author of a backend writes for the secrets contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

from totoms.environment import TotoEnvironment, implementation
from totoms.secrets.manager import SecretsManager


class SecretsManagerHarness(ABC):
    """Prepares the store of secrets for one test. Each test uses new names.

    Attributes:
        patience: The longest that a test waits for something, in seconds.
    """

    patience: float = 120.0

    def __init__(self) -> None:
        self._passed = 0.0

    @property
    @abstractmethod
    def environment(self) -> TotoEnvironment:
        """The environment of the tested backend."""

    @abstractmethod
    async def set_secret(self, name: str, value: bytes | None) -> str | None:
        """Create a secret in the store, or a new version of it, as an operator would.

        Args:
            name: The name that a service uses.
            value: The value; None deletes the secret with all its versions.

        Returns:
            The version, as `get_secret` accepts it; None if there are no versions.

        Raises:
            Unsupported: The store cannot hold this value, because it is empty or not text.
        """

    @abstractmethod
    async def deny(self, name: str) -> None:
        """Revoke the service's right to read a secret."""

    @abstractmethod
    def outage(self) -> AbstractAsyncContextManager[None]:
        """Make the store unreachable while the block runs."""

    def manager(self) -> SecretsManager:
        """Return a secrets manager with an empty cache, whose clock `advance` moves."""
        tested = implementation(SecretsManager, self.environment)
        clock, harness = tested._clock, self

        class Fresh(tested):  # type: ignore[valid-type, misc]
            # A new class: managers of one class and environment share a cache.
            @staticmethod
            def _clock() -> float:
                return clock() + harness._passed

        Fresh.__name__, Fresh.__qualname__ = tested.__name__, tested.__qualname__
        made: SecretsManager = Fresh(self.environment)
        return made

    def advance(self, seconds: float) -> None:
        """Move the clock of the managers' caches, without waiting."""
        self._passed += seconds

    @abstractmethod
    async def close(self) -> None:
        """Delete what the harness created."""
