"""The setting `MessageBusConfig.lease`."""

from __future__ import annotations

import math

from totoms.errors import ConfigurationError


def check_lease(seconds: float, allowed: tuple[float, float] | None, hyperscaler: str) -> None:
    """Check that a backend supports leases of `seconds`.

    Args:
        seconds: The configured length.
        allowed: The shortest and the longest lease of the backend; None if it cannot be configured.
        hyperscaler: Names the backend in the error.

    Raises:
        ConfigurationError: The backend does not support it; the error gives the supported range.
    """
    if allowed is None:
        raise ConfigurationError(
            f"MessageBusConfig.lease cannot be set: the {hyperscaler} message bus has fixed leases."
        )
    least, most = allowed
    if not least <= seconds <= most:
        range_of = f"from {least:g} to {most:g}" if math.isfinite(most) else f"{least:g} or more"
        raise ConfigurationError(
            f"MessageBusConfig.lease is {seconds:g} seconds; the {hyperscaler} message bus takes {range_of}."
        )
