from __future__ import annotations

import pytest

from support.messages.kit import MemoryBus


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()
