"""docs/how-to/big-messages.md: the file is there before anybody hears of it."""

from __future__ import annotations

from support.pages import run
from totoms.testing import TestMicroservice

PAGE = "how-to/big-messages.md"


async def test_name_is_published_and_the_file_is_handled() -> None:
    async with TestMicroservice(run(PAGE).configuration) as service:
        key = (await service.client.post("/images", content=b"x" * 400_000)).json()["key"]
        await service.settled()
        size = await service.files("images").get_file_content_async(f"sizes/{key.rpartition('/')[2]}")
        assert size == "400000"
