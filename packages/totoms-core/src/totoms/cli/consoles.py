"""The console of a service that ``python -m totoms run --console`` serves."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from totoms.errors import ConfigurationError

if TYPE_CHECKING:
    from totoms.console.server import ConsoleServer
    from totoms.service import TotoMicroservice


@dataclass(frozen=True)
class Wanted:
    """The options of the console.

    Attributes:
        port: Its port; None for the default, or the next free one.
        write: Whether it may change something.
    """

    port: int | None
    write: bool


class OpenedConsole:
    """The console of a service, once it is open. Its modules are imported only if it is wanted.

    Args:
        wanted: The options; None for no console.
        service_name: The name of the service.

    Raises:
        ConfigurationError: What the console needs is not installed.
    """

    def __init__(self, wanted: Wanted | None, service_name: str) -> None:
        self.wanted = wanted
        self._server: ConsoleServer | None = None
        if wanted is None:
            return
        try:
            import jinja2  # noqa: F401 - the message says what to install

            from totoms.console.watching import provide_tracing
        except ImportError as error:
            raise ConfigurationError(f"--console needs more: pip install 'totoms[dev]' ({error}).") from None
        provide_tracing(service_name)

    def open(self, microservice: TotoMicroservice) -> str:
        """Open the console and return its address; "" if none is wanted."""
        if self.wanted is None:
            return ""
        from totoms.console.server import start

        self._server = start(microservice, self.wanted.port, write=self.wanted.write)
        return self._server.url

    def close(self) -> None:
        """Close it."""
        if self._server is not None:
            self._server.stop()


def keep_address() -> None:
    """Choose the port and the token that the console keeps when the service is reloaded."""
    from totoms.console import KEPT_VARIABLE
    from totoms.console.ports import free_port

    os.environ[KEPT_VARIABLE] = f"{free_port()}:{secrets.token_urlsafe(32)}"
