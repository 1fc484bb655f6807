"""The base of all tests of the push endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from totoms.errors import Unsupported
from totoms.messages.driver import PUSH
from totoms.messages.message import TotoMessage, encode_message
from totoms.messages.push_request import PushRequest
from totoms.messages.subscription import RetryPolicy
from totoms.testing.contract import Contract
from totoms.testing.push.harness import Pushed, PushHarness
from totoms.testing.push.service import MESSAGE_TYPE, PushedService, succeed

RETRY: Final = RetryPolicy(max_attempts=3, min_backoff=0.0, max_backoff=0.0)
MESSAGE: Final = TotoMessage("2025.11.23 12:00:00", "c-1", "post-7", MESSAGE_TYPE, "Ein Beitrag: é", {"n": [1, None]})
BODY: Final = encode_message(MESSAGE)


class PushTests(Contract):
    """Starts services with a push endpoint."""

    async def _serve(
        self,
        harness: PushHarness,
        process: Callable[[TotoMessage], Any] = succeed,
        retry: RetryPolicy = RETRY,
        **options: Any,
    ) -> PushedService | None:
        """Return a service on the harness's bus. Without PUSH assert that its endpoint is closed, and return None."""
        bus = await harness.connect()
        assert (PUSH in self.capabilities) == (PUSH in bus.capabilities), (
            "the test class and the bus declare different capabilities"
        )
        service = PushedService(bus, harness.url, process, retry, **options)
        if PUSH in self.capabilities:
            return service
        with pytest.raises(Unsupported):
            await bus._accept_push(PushRequest({}, BODY, harness.url))
        for request in (Pushed(BODY), Pushed(BODY, {"authorization": "Bearer x"})):
            assert (await service.send(request)).status_code == 403
        assert service.handled == []
        return None
