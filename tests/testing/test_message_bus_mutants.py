"""The contract of the message bus finds what is broken, and passes what is not."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from support.local.messages import VirtualHarness
from support.mutants import messages as broken
from support.mutants import publishing
from totoms.errors import BackendError, Closed, NotFound
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages import message as messages
from totoms.messages import router as routing
from totoms.messages.consumer import Consumer
from totoms.messages.router import MessageRouter
from totoms.messages.subscription import RetryPolicy
from totoms.testing import MessageBusContract
from totoms.testing.contract import Contract, behaviours, number_of

SEEN = (AssertionError, BackendError, pytest.fail.Exception)
_COUNTED = "test_62_message_is_counted_while_it_is_handled_or_waits_for_its_next_attempt"
MUTANTS: list[tuple[type[LocalMessageBus], str, *tuple[str, ...]]] = [
    (publishing.RoundsLargeNumbers, "test_01_message_arrives_unchanged", "large numbers"),
    (publishing.LosesWhatGoesToQueues, "test_01_message_to_a_queue_arrives_at_who_takes_from_it"),
    (publishing.DeliversTwice, "test_02_several_messages_arrive_as_a_set"),
    (broken.LosesNacked, "test_07_failed_message_is_redelivered_with_growing_attempt"),
    (broken.ForgetsAttempts, "test_07_failed_message_is_redelivered_with_growing_attempt"),
    (broken.GivesNewIdsOnRedelivery, "test_07_failed_message_is_redelivered_with_growing_attempt"),
    (broken.PublishesACopyInsteadOfRetrying, "test_07_failed_message_is_redelivered_with_growing_attempt"),
    (broken.AcksOnlyTheFirst, "test_13_message_twice_in_one_ack_is_harmless"),
    (publishing.DeliversToOneOfTwoSubscriptions, "test_03_each_subscription_gets_everything"),
    (publishing.DeliversToEachConsumer, "test_03_consumers_of_one_subscription_share_it"),
    (publishing.SubscribesWithItsFirstReceive, "test_04_message_published_before_the_first_consumer_is_kept"),
    (publishing.SubscribesWithItsFirstReceive, "test_04_message_published_while_no_consumer_runs_is_kept"),
    (publishing.MakesWhatItMayNot, "test_05_missing_subscription_is_not_found"),
    (publishing.SwallowsAfterClose, "test_06_publish_after_close_is_refused"),
    (publishing.HangsAfterClose, "test_06_publish_after_close_is_refused"),
    (publishing.CannotCloseTwice, "test_06_publish_after_close_is_refused"),
    (publishing.HangsWhenClosedWhilePublishing, "test_06_close_while_publishing_does_not_hang"),
    (broken.GivesUpTooEarly, "test_08_message_is_dead_lettered_after_exactly_n_attempts", "FAILED"),
    (broken.GivesNoReasons, "test_08_message_is_dead_lettered_after_exactly_n_attempts", "FAILED"),
    (broken.LosesDeadLetters, "test_08_message_is_dead_lettered_after_exactly_n_attempts", "an exception"),
    (broken.KeepsDeadLettersInTheQueueToo, "test_09_non_retryable_error_is_dead_lettered_at_once"),
    (broken.IgnoresBackoff, "test_10_failed_message_comes_again_after_its_backoff"),
    (broken.RenewsNoLease, "test_11_handler_slower_than_the_lease_runs_once"),
    (broken.HidesLostLeases, "test_12_handler_is_cancelled_when_its_lease_is_lost"),
    (broken.HidesLostLeases, "test_12_late_operations_are_refused_or_harmless"),
    (broken.AcksAnothersLease, "test_12_handler_is_cancelled_when_its_lease_is_lost"),
    (broken.AcksAnothersLease, "test_12_late_operations_are_refused_or_harmless"),
    (broken.ForgetsAttempts, "test_12_message_whose_consumers_die_is_dead_lettered"),
    (broken.FailsToAckTwice, "test_13_ack_twice_and_nack_after_ack_are_harmless"),
    (broken.NacksWhatIsSettled, "test_13_ack_twice_and_nack_after_ack_are_harmless"),
    (broken.AcksAnothersLease, "test_13_ack_after_nack_is_harmless"),
    (broken.RefusesToAckWhatIsBeingRenewed, "test_13_ack_and_renewal_at_the_same_time_settle_the_message"),
    (publishing.BlocksTheLoop, "test_14_event_loop_is_never_held_up"),
    (broken.ReturnsMoreThanIsAskedFor, "test_14_max_concurrency_is_reached_and_never_exceeded"),
    (broken.LeasesMoreThanIsAskedFor, "test_15_prefetch_stays_within_free_slots"),
    (broken.LeasesMoreThanIsAskedFor, "test_15_no_more_is_leased_than_was_asked_for"),
    (broken.ReturnsMoreThanIsAskedFor, "test_15_no_more_is_leased_than_was_asked_for"),
    (broken.DropsWhatWasPrefetched, "test_16_stop_loses_nothing_and_counts_no_attempt"),
    (broken.CountsWhatWasPrefetched, "test_16_stop_loses_nothing_and_counts_no_attempt"),
    (broken.LeavesItsPollOpen, "test_16_stop_with_a_long_poll_open_strands_nothing"),
    (broken.LosesNacked, "test_16_handler_that_is_cut_off_has_its_message_come_again"),
    (publishing.IgnoresOrdering, "test_17_order_is_kept_under_concurrency_and_across_a_failure"),
    (broken.BlocksKeysOfDeadMessages, "test_17_dead_lettered_message_lets_the_next_of_its_key_pass"),
    (publishing.LosesOneOfABatch, "test_18_batch_beyond_the_brokers_limit_is_split"),
    (publishing.RefusesLargeBatches, "test_18_batch_beyond_the_brokers_limit_in_bytes_is_split"),
    (publishing.RefusesAtTheLimit, "test_19_message_up_to_the_size_limit_is_accepted", "x"),
    (publishing.AcceptsTooLarge, "test_19_message_above_the_size_limit_is_refused_before_any_io", "é"),
    (publishing.SendsBeforeItMeasures, "test_19_message_above_the_size_limit_is_refused_before_any_io", "x"),
    (broken.LosesDeadLetters, "test_20_undecodable_message_is_dead_lettered", "NaN"),
    (broken.GivesNoReasons, "test_20_undecodable_message_is_dead_lettered", "depth"),
    (publishing.LosesOtherTypes, "test_21_unknown_type_is_ignored_and_counted"),
    (publishing.DropsAttributes, "test_22_traceparent_and_cid_travel"),
    (publishing.IgnoresDelay, "test_23_delayed_message_comes_after_its_delay"),
    (publishing.DelaysTooLong, "test_23_delayed_message_comes_after_its_delay"),
    (broken.ListsAllDeadLetters, "test_24_dead_letters_are_listed_and_inspected"),
    (broken.ListsTheNewestFirst, "test_24_dead_letters_are_listed_and_inspected"),
    (broken.ListsNothingForUnknownSubscriptions, "test_24_unknown_subscription_has_no_dead_letters"),
    (broken.ReplaysAsNew, "test_24_dead_letters_are_replayed"),
    (broken.ReplaysToEverybody, "test_24_dead_letters_are_replayed"),
    (broken.PurgesAll, "test_24_dead_letters_are_purged"),
    (broken.GivesNoNumber, "test_62_messages_are_counted_until_they_are_handled"),
    (broken.CountsHandledMessages, "test_62_messages_are_counted_until_they_are_handled"),
    (broken.CountsWhatNobodyLeases, _COUNTED),
    (broken.CountsAnAttemptWhenItCounts, _COUNTED),
    (broken.GivesTheAgeOfTheNewest, "test_62_age_is_that_of_the_oldest_message"),
    (broken.GivesTheAgeOfAnEarlierMessage, "test_62_age_is_that_of_the_oldest_message"),
    (broken.GivesTheAgeOfTheFirst, "test_62_age_is_that_of_the_oldest_message"),
    (publishing.DropsVersions, "test_64_event_arrives_as_it_was_published"),
    (broken.GivesNoReasons, "test_64_invalid_data_is_dead_lettered_at_once"),
    (broken.ForgetsAttempts, "test_64_newer_version_is_dead_lettered_after_its_attempts"),
    (publishing.FailsTheWholeBatch, "test_65_message_that_the_broker_refuses_fails_alone"),
    (publishing.FailsBesideALongType, "test_65_message_with_a_long_type_harms_no_other"),
    (broken.TakesReplaysOneByOne, "test_66_replayed_dead_letters_are_taken_as_fast_as_new_messages"),
    (publishing.LosesWhatIsPublishedWhileAway, "test_25_broker_away_is_a_typed_error_or_a_wait"),
    (publishing.LetsTheDriversErrorsOut, "test_25_broker_away_is_a_typed_error_or_a_wait"),
    (broken.LosesNacked, "test_26_troubled_handler_is_counted_and_the_worker_lives", "raises"),
    (broken.LosesDeadLetters, "test_26_troubled_handler_is_counted_and_the_worker_lives", "raises SystemExit"),
    (broken.KeepsWhatTheHandlerSaw, "test_67_dead_letter_keeps_and_replays_the_original_bytes"),
    (publishing.WritesTextsOnly, "test_67_fields_that_are_not_strings_are_published_as_given"),
    (broken.HidesThatItVanished, "test_68_subscription_that_vanished_is_created_again"),
    (broken.AcksNothingOnceItVanished, "test_68_handler_outlives_its_subscription"),
]


class NeverRaised(Exception):
    pass


_GIVEN_UP = "test_08_message_is_dead_lettered_after_exactly_n_attempts"
_BACKOFF = "test_10_backoff_grows_and_is_jittered"
_CONCURRENCY = "test_14_max_concurrency_is_reached_and_never_exceeded"
_FIELDS = "test_67_fields_that_are_not_strings_arrive_as_text"
_TROUBLED = "test_26_troubled_handler_is_counted_and_the_worker_lives"
CORE: list[tuple[Any, str, Any, str, *tuple[str, ...]]] = [
    (MessageRouter, "_failed", lambda *_: routing._RETRY, _GIVEN_UP, "FAILED"),
    (routing, "NonRetryableError", NeverRaised, "test_09_non_retryable_error_is_dead_lettered_at_once"),
    (RetryPolicy, "backoff", lambda self, _: self.min_backoff, _BACKOFF),
    (RetryPolicy, "backoff", lambda self, _: random.uniform(0, self.min_backoff), _BACKOFF),
    (Consumer, "_keep_leases", asyncio.sleep, "test_11_handler_slower_than_the_lease_runs_once"),
    (Consumer, "_free_slots", lambda _: 100, _CONCURRENCY),
    (Consumer, "_free_slots", lambda self: 1 - self.in_flight, _CONCURRENCY),
    (routing, "_IGNORED", routing._SUCCESS, "test_21_unknown_type_is_ignored_and_counted"),
    (routing, "remember_traceparent", lambda _: None, "test_22_traceparent_and_cid_travel"),
    (MessageRouter, "handle", MessageRouter._process, _TROUBLED, "raises"),
    (messages, "_text", lambda value: value or "", _FIELDS, "id a number, cid null"),
    (messages, "_text", str, _FIELDS, "msg an object"),
    (routing, "TYPE_ATTRIBUTE", "anotherAttribute", "test_67_type_that_stands_beside_the_body_is_used"),
    (routing, "ForeignMessage", NeverRaised, "test_67_object_without_a_type_is_ignored_and_counted", "type null"),
]
"""What is not the backend's: where it is, its name, what is there instead, and the test that sees it."""


class Hasty(VirtualHarness):
    patience = 1.0


class Declared(MessageBusContract):
    __test__ = False
    backend = "local"
    capabilities = LocalMessageBus.capabilities


class DeclaredWithoutExtras(Declared):
    capabilities = broken.WithoutExtras.capabilities


class DeclaredWithoutPull(Declared):
    capabilities = broken.WithoutPull.capabilities


Make = Callable[..., VirtualHarness]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[VirtualHarness] = []

    def making(
        bus: type[LocalMessageBus] = LocalMessageBus, harness: type[VirtualHarness] = VirtualHarness
    ) -> VirtualHarness:
        made.append(harness(tmp_path / f"root-{len(made)}", bus))
        return made[-1]

    yield making
    for harness in made:
        with contextlib.suppress(Closed):  # one of the mutants cannot be closed twice
            await harness.close()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant[0].__name__}-{mutant[1][:7]}")
async def test_contract_sees_the_mutant(mutant: tuple[Any, ...], make: Make) -> None:
    bus, name, *arguments = mutant
    test = getattr(Declared(), name)
    await test(make(), *arguments)  # what is not broken passes

    with pytest.raises(SEEN):
        await test(make(bus, Hasty), *arguments)


@pytest.mark.parametrize("mutant", CORE, ids=lambda mutant: f"{mutant[0].__name__}.{mutant[1]}-{mutant[3][:7]}")
async def test_contract_sees_the_mutant_of_the_core(
    mutant: tuple[Any, ...], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, name, instead, test, *arguments = mutant
    monkeypatch.setattr(where, name, instead)
    with pytest.raises(SEEN):
        await getattr(Declared(), test)(make(harness=Hasty), *arguments)


@pytest.mark.parametrize("number", [*range(1, 27), 62, 65, 66, 67, 68])
def test_each_behaviour_is_asserted_and_was_seen_to_fail(number: int) -> None:
    assert behaviours(MessageBusContract)[number]
    assert number in {number_of(name) for name in [mutant[1] for mutant in MUTANTS] + [mutant[3] for mutant in CORE]}


def _cases(contract: type[Contract]) -> list[tuple[str, tuple[str, ...]]]:
    cases: list[tuple[str, tuple[str, ...]]] = []
    for name in (name for names in behaviours(contract).values() for name in names if not name.startswith("test_00")):
        test = inspect.getattr_static(contract, name)
        given = [mark.args[1] for mark in test.__dict__.get("pytestmark", []) if mark.name == "parametrize"]
        cases.append((name, (next(iter(given[0])),) if given else ()))
    return cases


@pytest.mark.parametrize(("name", "arguments"), _cases(MessageBusContract))
async def test_backend_that_cannot_do_all_passes_by_declaring_it(
    name: str, arguments: tuple[str, ...], make: Make
) -> None:
    await getattr(DeclaredWithoutExtras(), name)(make(broken.WithoutExtras), *arguments)
    await getattr(DeclaredWithoutPull(), name)(make(broken.WithoutPull), *arguments)


@pytest.mark.parametrize(
    "name",
    [
        "test_01_message_to_a_queue_arrives_at_who_takes_from_it",
        "test_17_ordering_is_refused_where_it_is_not_declared",
        "test_23_delayed_message_comes_after_its_delay",
        "test_24_dead_letters_are_listed_and_inspected",
    ],
)
async def test_contract_sees_what_is_ignored_instead_of_refused(name: str, make: Make) -> None:
    with pytest.raises((*SEEN, NotFound)):
        await getattr(DeclaredWithoutExtras(), name)(make(broken.IgnoresWhatItHasNot, Hasty))


async def test_contract_sees_what_is_declared_otherwise_than_by_the_bus(make: Make) -> None:
    with pytest.raises(AssertionError, match="declare"):
        await DeclaredWithoutPull().test_18_empty_batch_has_no_results(make())
    with pytest.raises(AssertionError, match="declare"):
        await Declared().test_18_empty_batch_has_no_results(make(broken.WithoutPull))


async def test_contract_sees_receiving_that_is_not_declared(make: Make) -> None:
    with pytest.raises(NotFound):  # and not Unsupported
        await DeclaredWithoutPull().test_03_each_subscription_gets_everything(make(broken.PullsUndeclared))
