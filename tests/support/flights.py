"""Wait for a shared call that runs in the background."""

from __future__ import annotations

import asyncio
from typing import Any

from totoms.plugin import SingleFlight

DEADLINE = 120.0


async def ended(flight: SingleFlight[Any]) -> None:
    """Wait until the running call, if there is one, has succeeded or failed."""
    if flight._running is not None:
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(asyncio.wrap_future(flight._running), return_exceptions=True)
