"""docs/how-to/retries.md: what is tried again, and what is not."""

from __future__ import annotations

from support.pages import run
from totoms.messages.outcome import Action
from totoms.testing import TestMicroservice

PAGE = "how-to/retries.md"


async def test_error_is_tried_again_and_what_cannot_work_is_a_dead_letter() -> None:
    page = run(PAGE)
    async with TestMicroservice(page.configuration) as service:
        first = await service.deliver(page.PaymentWanted(invoice="1", amount=5), topic="payments")
        assert first.outcome.action is Action.RETRY
        second = await service.deliver(page.PaymentWanted(invoice="1", amount=5), topic="payments", attempt=2)
        assert second.succeeded
        never = await service.deliver(page.PaymentWanted(invoice="2", amount=0), topic="payments")
        assert never.outcome.action is Action.DEAD_LETTER
        assert page.charged == ["1"]
