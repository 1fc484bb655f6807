"""What the contract of the secrets needs of a backend's author."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

from totoms.environment import TotoEnvironment, implementation
from totoms.secrets import SecretsManager


class SecretsManagerHarness(ABC):
    """One test's hold on a store of secrets. Each test makes names of its own.

    Attributes:
        patience: Seconds within which what must happen, happens.
    """

    patience: float = 20.0

    def __init__(self) -> None:
        self._passed = 0.0

    @property
    @abstractmethod
    def environment(self) -> TotoEnvironment:
        """The tested backend, with its settings."""

    @abstractmethod
    async def set_secret(self, name: str, value: bytes | None) -> str | None:
        """Put a secret into the store, as its operator would, or a new version of it; return the version.

        Args:
            name: The name, as a service asks for it.
            value: The value; None deletes the secret, with all its versions.

        Returns:
            What `get_secret` takes as the version; None where there are no versions.

        Raises:
            Unsupported: The store cannot hold this value: an empty one, or one that is no text.
        """

    @abstractmethod
    async def deny(self, name: str) -> None:
        """Let the service's credentials no longer allow reading a secret."""

    @abstractmethod
    def outage(self) -> AbstractAsyncContextManager[None]:
        """Have the store out of reach while the block runs."""

    def manager(self) -> SecretsManager:
        """Return a secrets manager that remembers nothing of those before, and goes by the clock of `advance`."""
        tested = implementation(SecretsManager, self.environment)
        clock, harness = tested._clock, self

        class Fresh(tested):  # type: ignore[valid-type, misc]
            # Caches are shared by class and environment.
            @staticmethod
            def _clock() -> float:
                return clock() + harness._passed

        Fresh.__name__, Fresh.__qualname__ = tested.__name__, tested.__qualname__
        made: SecretsManager = Fresh(self.environment)
        return made

    def advance(self, seconds: float) -> None:
        """Let time pass for what the managers of this harness remember. Nothing waits."""
        self._passed += seconds

    @abstractmethod
    async def close(self) -> None:
        """Remove what was made."""
