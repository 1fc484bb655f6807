"""What the lifecycle contract needs of the local backend, for it and for broken variants of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.local.configuration import LocalConfiguration
from totoms.testing import LifecycleHarness


class LocalLifecycleHarness(LifecycleHarness):
    """Two root folders; secrets are environment variables, until `close`."""

    def __init__(self, root: Path, hyperscaler: str = "local") -> None:
        self._root = root
        self._hyperscaler = hyperscaler
        self._variables: dict[str, str | None] = {}

    def environment(self) -> TotoEnvironment:
        return TotoEnvironment(self._hyperscaler, LocalConfiguration(root=self._root))

    def second_environment(self) -> TotoEnvironment:
        return TotoEnvironment(self._hyperscaler, LocalConfiguration(root=self._root.with_name("second")))

    async def create_topic(self) -> str:
        return f"topic-{new_cid()}"

    async def create_bucket(self) -> str:
        return f"bucket-{new_cid()}"

    async def set_secret(self, name: str, value: str) -> None:
        variable = re.sub("[^A-Za-z0-9]", "_", name).upper()
        self._variables.setdefault(variable, os.environ.get(variable))
        os.environ[variable] = value

    async def close(self) -> None:
        for name, value in self._variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
