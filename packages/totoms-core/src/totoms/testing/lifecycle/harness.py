"""The harness that the author of a backend writes for the lifecycle contract."""

from __future__ import annotations

from abc import ABC, abstractmethod

from totoms.environment import TotoEnvironment


class LifecycleHarness(ABC):
    """Prepares the tested backend for one test.

    Attributes:
        patience: The longest that a test waits for something, in seconds.
    """

    patience: float = 120.0

    @abstractmethod
    def environment(self) -> TotoEnvironment:
        """Return a new environment object of the tested backend."""

    def second_environment(self) -> TotoEnvironment | None:
        """Return an environment of the same hyperscaler that shares no messages and no files with the first.

        Use another folder, account, project or prefix. It must have the same topics and buckets, and may share secrets.
        Return None, as here, if there cannot be two.
        """
        return None

    @abstractmethod
    async def create_topic(self) -> str:
        """Create a topic with a new name in both environments; return the provider's identifier."""

    @abstractmethod
    async def create_bucket(self) -> str:
        """Create a bucket with a new name in both environments; return its name."""

    @abstractmethod
    async def set_secret(self, name: str, value: str) -> None:
        """Put a secret into the backend's store."""

    @abstractmethod
    async def close(self) -> None:
        """Delete what the harness created."""
