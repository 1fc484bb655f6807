"""The lifecycle contract, held against the local backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.local.lifecycle import LocalLifecycleHarness
from totoms.local.messages.bus import LocalMessageBus
from totoms.testing import LifecycleContract


class TestLocalLifecycle(LifecycleContract):
    backend = "local"
    capabilities = LocalMessageBus.capabilities

    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[LocalLifecycleHarness]:
        made = LocalLifecycleHarness(tmp_path / "root")
        yield made
        await made.close()
