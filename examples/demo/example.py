"""What the demo needs to know of an example."""

import contextlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from totoms import TotoMicroserviceConfiguration


@dataclass(frozen=True)
class Needs:
    """What an operator makes before the example is started in a cloud.

    Attributes:
        topics: The topics, by the name of the secret that holds their identifier.
        buckets: The buckets.
        secrets: The names of secrets whose value is random.
    """

    topics: Mapping[str, str]
    buckets: Sequence[str]
    secrets: Sequence[str] = ()

    def random_secrets(self) -> dict[str, str]:
        """Return new values for the secrets, and for the key that signs the services' own tokens."""
        return {name: secrets.token_hex(32) for name in (*self.secrets, "jwt-signing-key")}


class Example(ABC):
    """An example. The module `demo` of its folder has a subclass of this name.

    Attributes:
        needs: What it needs in a cloud.
    """

    needs: Needs

    @abstractmethod
    def configuration(self) -> TotoMicroserviceConfiguration:
        """Return the declaration of the service that is served on the demo's port."""

    @abstractmethod
    async def announcement(self, address: str) -> str:
        """Return what to print when the service at `address` answers: lines to paste."""

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Run what the service needs in addition, from when the backend is ready."""
        yield
