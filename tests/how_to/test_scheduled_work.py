"""docs/how-to/scheduled-work.md: only the scheduler gets in, and two calls of a day do the work once."""

from __future__ import annotations

from support.pages import run
from totoms.testing import TestMicroservice

PAGE = "how-to/scheduled-work.md"


async def test_cleanup_is_done_once_a_day() -> None:
    async with TestMicroservice(run(PAGE).configuration) as service:
        assert (await service.client.post("/cleanup")).status_code == 403
        scheduler = service.client_of("scheduler", claims={"roles": ["scheduler"]})
        days = {(await scheduler.post("/cleanup")).json()["day"] for _ in range(2)}
        await service.settled()
        assert set(await service.files("cleanups").list_files_async()) == {f"{day}.txt" for day in days}
