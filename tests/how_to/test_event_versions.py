"""docs/how-to/event-versions.md: a message of the old version is read as the event of today."""

from __future__ import annotations

import json

from support.pages import run
from totoms.testing import TestMicroservice

PAGE = "how-to/event-versions.md"


async def test_both_versions_are_handled() -> None:
    page = run(PAGE)
    async with TestMicroservice(page.configuration) as service:
        old = json.dumps({"type": "orderPlaced", "cid": "c", "data": {"order": "1", "amount": 9.99}}).encode()
        assert (await service.deliver(old, topic="orders")).succeeded
        assert (await service.deliver(page.OrderPlaced(order="2", cents=5), topic="orders")).succeeded
        assert page.seen == [("1", 999), ("2", 5)]
