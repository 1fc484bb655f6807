"""docs/how-to/ordering.md: messages of one key are handled in the order in which they were published."""

from __future__ import annotations

from support.pages import run
from totoms.testing import TestMicroservice

PAGE = "how-to/ordering.md"


async def test_messages_of_an_account_are_handled_in_order() -> None:
    page = run(PAGE)
    async with TestMicroservice(page.configuration) as service:
        for balance in range(20):
            for account in ("a", "b"):
                answer = await service.client.post(f"/accounts/{account}", params={"balance": balance})
                assert answer.is_success
        await service.settled()
        assert page.balances == {"a": list(range(20)), "b": list(range(20))}
