"""The contract of the message bus, held against Pub/Sub: Google's emulator, and a stand-in of our own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from gcp_messages_kit import PubSubHarness, emulator, stand_in
from totoms.testing import MessageBusContract
from totoms_gcp.bus import PubSubMessageBus


@pytest.fixture(scope="module")
def google_emulator() -> Iterator[int]:
    with emulator() as port:
        yield port


@pytest.fixture(scope="module")
def own_stand_in() -> Iterator[int]:
    with stand_in() as server:
        yield server.port


class TestPubSubOnAStandIn(MessageBusContract):
    backend = "gcp"
    capabilities = PubSubMessageBus.capabilities
    arrangement = "stand-in"

    @pytest.fixture
    async def harness(self, own_stand_in: int) -> AsyncIterator[PubSubHarness]:
        made = PubSubHarness(own_stand_in)
        await made.start()
        yield made
        await made.close()

    @pytest.mark.xfail(reason="Pub/Sub counts giving a message back as an attempt, as it does a failure", strict=True)
    async def test_16_stop_loses_nothing_and_counts_no_attempt(self, harness: PubSubHarness) -> None:
        await super().test_16_stop_loses_nothing_and_counts_no_attempt(harness)

    @pytest.mark.xfail(reason="Pub/Sub counts giving a message back as an attempt; seldom one is on its way")
    async def test_16_stop_finishes_what_is_handled(self, harness: PubSubHarness) -> None:
        await super().test_16_stop_finishes_what_is_handled(harness)


class TestPubSubOnGooglesEmulator(MessageBusContract):
    backend = "gcp"
    capabilities = PubSubMessageBus.capabilities
    arrangement = "Google's emulator"

    @pytest.fixture
    async def harness(self, google_emulator: int) -> AsyncIterator[PubSubHarness]:
        made = PubSubHarness(google_emulator)
        await made.start()
        yield made
        await made.close()

    # What the emulator gets wrong; the stand-in of our own does not.

    @pytest.mark.xfail(reason="Pub/Sub counts giving a message back as an attempt, as it does a failure", strict=True)
    async def test_16_stop_loses_nothing_and_counts_no_attempt(self, harness: PubSubHarness) -> None:
        await super().test_16_stop_loses_nothing_and_counts_no_attempt(harness)

    @pytest.mark.xfail(reason="Pub/Sub counts giving a message back as an attempt; seldom one is on its way")
    async def test_16_stop_finishes_what_is_handled(self, harness: PubSubHarness) -> None:
        await super().test_16_stop_finishes_what_is_handled(harness)

    @pytest.mark.xfail(reason="The emulator now and then hands a message to a pull that was cancelled")
    async def test_16_handler_that_is_cut_off_has_its_message_come_again(self, harness: PubSubHarness) -> None:
        await super().test_16_handler_that_is_cut_off_has_its_message_come_again(harness)

    @pytest.mark.xfail(reason="The emulator now and then hands a message to a pull that was cancelled")
    async def test_07_failed_message_is_redelivered_to_any_consumer(self, harness: PubSubHarness) -> None:
        await super().test_07_failed_message_is_redelivered_to_any_consumer(harness)

    @pytest.mark.xfail(reason="The emulator delivers the next of a key when one has failed", strict=True)
    async def test_17_order_is_kept_under_concurrency_and_across_a_failure(self, harness: PubSubHarness) -> None:
        await super().test_17_order_is_kept_under_concurrency_and_across_a_failure(harness)

    @pytest.mark.xfail(reason="The emulator delivers the next of a key when one has failed", strict=True)
    async def test_17_message_given_up_lets_the_next_of_its_key_pass(self, harness: PubSubHarness) -> None:
        await super().test_17_message_given_up_lets_the_next_of_its_key_pass(harness)
