"""Dead letters for the commands."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.local.dead_letters import BLOG, Letters


@pytest.fixture
async def letters() -> AsyncIterator[Letters]:
    made = Letters()
    await made.bus._subscribe(BLOG, create=True)
    yield made
    await made.bus.close()
