"""The secrets contract, held against the local backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.local.secrets import LocalSecretsHarness
from totoms.testing import SecretsManagerContract


class TestLocalSecrets(SecretsManagerContract):
    backend = "local"

    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[LocalSecretsHarness]:
        made = LocalSecretsHarness(tmp_path)
        yield made
        await made.close()
