from __future__ import annotations

import pytest

from messaging_kit import MemoryBus


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()
