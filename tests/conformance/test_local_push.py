"""The push contract, held against the local backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.local.push import LocalPushHarness
from totoms.local.messages.bus import LocalMessageBus
from totoms.testing import PushContract


class TestLocalPush(PushContract):
    backend = "local"
    capabilities = LocalMessageBus.capabilities

    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[LocalPushHarness]:
        made = LocalPushHarness(tmp_path / "root")
        yield made
        await made.close()
