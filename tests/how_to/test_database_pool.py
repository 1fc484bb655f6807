"""docs/how-to/database-pool.md: requests use the database, readiness asks it, and it is closed at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.pages import run
from totoms.testing import TestMicroservice

pytest.importorskip("sqlalchemy", reason="not installed: nox -s tests does")
PAGE = "how-to/database-pool.md"


async def test_posts_are_stored(tmp_path: Path) -> None:
    page = run(PAGE)
    url = f"sqlite+aiosqlite:///{tmp_path}/posts.db"
    async with TestMicroservice(page.configuration, secrets={"database-url": url}) as service:
        for title in ("One", "Two"):
            assert (await service.client.post("/posts", params={"slug": title.lower(), "title": title})).is_success
        assert (await service.client.get("/posts")).json() == ["One", "Two"]
        assert (await service.client.get("/ready")).status_code == 200
