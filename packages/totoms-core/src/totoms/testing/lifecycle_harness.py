"""What the contract of the lifecycle needs of a backend's author."""

from __future__ import annotations

from abc import ABC, abstractmethod

from totoms.environment import TotoEnvironment


class LifecycleHarness(ABC):
    """One test's hold on a backend in which services run.

    Attributes:
        patience: Seconds within which what must happen, happens.
    """

    patience: float = 20.0

    @abstractmethod
    def environment(self) -> TotoEnvironment:
        """Return a new object that describes the tested backend: each time the same backend."""

    def second_environment(self) -> TotoEnvironment | None:
        """Return an environment of the same hyperscaler that shares no messages and no files with the first.

        Another folder, account, project or prefix. None, as given here, where there cannot be two. Topics and buckets
        of the same names are looked for in it; secrets may be the same.
        """
        return None

    @abstractmethod
    async def create_topic(self) -> str:
        """Make a topic with a new name, in both environments; return the provider's identifier."""

    @abstractmethod
    async def create_bucket(self) -> str:
        """Make a bucket with a new name, in both environments; return its name."""

    @abstractmethod
    async def set_secret(self, name: str, value: str) -> None:
        """Put a secret into the backend's store."""

    @abstractmethod
    async def close(self) -> None:
        """Remove what was made."""
