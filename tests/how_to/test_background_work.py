"""docs/how-to/background-work.md: the message is handled, and the task runs."""

from __future__ import annotations

from support.pages import run
from totoms.testing import TestMicroservice

PAGE = "how-to/background-work.md"


async def test_both_kinds_of_work_are_done() -> None:
    page = run(PAGE)
    async with TestMicroservice(page.configuration) as service:
        assert (await service.client.post("/reports", params={"month": "may"})).status_code == 202
        await service.settled()
        assert page.warmed == ["may"]
        assert await service.files("reports").get_file_content_async("may.txt") == "The report of may"
