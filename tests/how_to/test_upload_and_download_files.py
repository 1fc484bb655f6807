"""docs/how-to/upload-and-download-files.md: a file goes up and comes down, and a name cannot lead elsewhere."""

from __future__ import annotations

from support.pages import run
from totoms.testing import TestMicroservice

PAGE = "how-to/upload-and-download-files.md"


async def test_file_goes_up_and_comes_down() -> None:
    async with TestMicroservice(run(PAGE).configuration) as service:
        content = b"a,b\n" * 100_000
        assert (await service.client.put("/reports/may", content=content)).json()["etag"]
        answer = await service.client.get("/reports/may")
        assert (answer.content, answer.headers["content-type"].split(";")[0]) == (content, "text/csv")
        assert (await service.client.get("/reports/june")).status_code == 404
        assert (await service.client.put("/reports/..%2Fother", content=b"x")).status_code in (404, 422)
