"""docs/how-to/roles.md: who gets in, and who does not."""

from __future__ import annotations

from support.pages import run
from totoms.testing import TestMicroservice

PAGE = "how-to/roles.md"


async def test_callers_get_what_they_may() -> None:
    async with TestMicroservice(run(PAGE).configuration) as service:
        nobody, ann = service.client_of(None), service.client_of("ann", claims={"roles": ["author"]})
        writer = service.client_of("ann", claims={"scope": "posts:write"})
        admin = service.client_of("root", claims={"roles": ["admin"]})
        assert (await nobody.get("/posts")).status_code == 200
        assert (await nobody.post("/posts")).status_code == 401
        assert (await ann.post("/posts")).status_code == 403
        assert (await writer.post("/posts")).status_code == 200
        assert (await ann.delete("/posts/ann")).status_code == 200
        assert (await ann.delete("/posts/bob")).status_code == 403
        assert (await admin.delete("/posts/bob")).status_code == 200
