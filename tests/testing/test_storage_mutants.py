"""Storages that are broken on purpose: the contract must see each, and pass the one that is not."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.local.storage import LocalStorageHarness
from support.mutants import storage as broken
from totoms.errors import BackendError
from totoms.local.storage.storage import LocalCloudStorage
from totoms.storage.storage import CloudStorage
from totoms.testing import CloudStorageContract

SEEN = (AssertionError, BackendError, OSError, pytest.fail.Exception)


class Declared(CloudStorageContract):
    __test__ = False
    backend = "local"
    capabilities = LocalCloudStorage.capabilities


class WithoutURLs(Declared):
    capabilities = frozenset()


@dataclass(frozen=True)
class Mutant:
    test: str
    storage: type[CloudStorage]
    arguments: dict[str, Any] = field(default_factory=dict)
    local: bool = False
    """Whether the test takes a folder."""


def content(of: bytes) -> dict[str, Any]:
    return {"content": of}


def key(of: str) -> dict[str, Any]:
    return {"key": of}


ROUND_TRIP = "test_33_content_comes_back_as_it_went_in"
MEMORY = "test_33_memory_stays_well_below_the_object"
OWN = "test_43_key_is_a_file_of_its_own"
REFUSED = "test_43_key_that_some_store_cannot_keep_is_refused"
APART = "test_43_no_two_keys_are_one"
ENCODED = "test_57_encoded_file_comes_back_as_it_is_stored"
MUTANTS = [
    Mutant(ROUND_TRIP, broken.TakesContentForText, content(bytes(range(256))), local=True),
    Mutant(ROUND_TRIP, broken.LosesEmptyFiles, content(b""), local=True),
    Mutant(ROUND_TRIP, broken.EndsAtAnEmptyChunk, content(bytes(1000)), local=True),
    Mutant(MEMORY, broken.HoldsWholeUploads, local=True),
    Mutant(MEMORY, broken.HoldsWholeDownloads, local=True),
    Mutant("test_34_range_is_what_a_slice_gives", broken.GivesOneByteMore),
    Mutant("test_34_range_is_what_a_slice_gives", broken.FailsBeyondTheEnd),
    Mutant("test_34_range_across_chunks", broken.IgnoresRangesAcrossItsChunks),
    Mutant("test_35_content_type_is_kept_or_derived_from_the_key", broken.LosesContentTypes),
    Mutant("test_35_metadata_comes_back_unchanged", broken.ChangesMetadataNames),
    Mutant("test_35_metadata_comes_back_unchanged", broken.KeepsOldMetadata),
    Mutant("test_35_stat_has_size_time_and_an_etag_that_changes", broken.MakesEtagsOfContent),
    Mutant("test_36_list_of_1001_keys_is_complete", broken.ListsOnePage),
    Mutant("test_36_list_of_1001_keys_is_complete", broken.ListsFoldersOncePerPage),
    Mutant("test_36_list_is_in_order_of_code_points", broken.ListsOutOfOrder),
    Mutant("test_36_list_is_in_order_of_code_points", broken.ListsInTheOrderOfUTF16),
    Mutant("test_36_list_is_in_order_of_code_points", broken.TakesPrefixesForFolders),
    Mutant("test_36_list_does_nothing_before_it_is_asked", broken.ListsAtOnce),
    Mutant("test_37_missing_file_is_the_same_everywhere", broken.NamesNothing, local=True),
    Mutant("test_37_missing_file_is_the_same_everywhere", broken.TellsMissingBucketsApart, local=True),
    Mutant("test_37_missing_file_is_the_same_everywhere", broken.ReadsMissingFilesAsEmpty, local=True),
    Mutant("test_38_delete_and_delete_again", broken.DeletesOnlyWhatIsThere),
    Mutant("test_38_delete_and_delete_again", broken.DeletesFolders),
    Mutant("test_39_reader_sees_old_or_new", broken.WritesInPlace),
    Mutant("test_39_stream_is_of_one_version", broken.StreamsMixVersions),
    Mutant("test_39_cancelled_upload_leaves_the_old", broken.KeepsHalfOfWhatIsCancelled),
    Mutant("test_40_of_twenty_creators_one_wins", broken.IgnoresIfAbsent),
    Mutant("test_40_of_twenty_creators_one_wins", broken.ChecksConditionsAtTheBegin),
    Mutant("test_40_of_twenty_replacers_one_wins", broken.IgnoresIfMatch),
    Mutant("test_40_of_twenty_replacers_one_wins", broken.ChecksConditionsAtTheBegin),
    Mutant("test_40_failed_conditions_are_reported_and_change_nothing", broken.IgnoresIfMatch, local=True),
    Mutant("test_41_copy_and_move_keep_content_type_and_metadata", broken.CopiesContentOnly),
    Mutant("test_41_copy_and_move_keep_content_type_and_metadata", broken.MovesByCopying),
    Mutant("test_41_copy_onto_itself_keeps_it", broken.MovesOntoItselfByDeleting),
    Mutant("test_41_copy_of_a_missing_file_makes_nothing", broken.CopiesWhatIsMissing),
    Mutant("test_42_signed_url_to_download", broken.URLsLoseTheContentType),
    Mutant("test_42_signed_url_to_download", broken.DeclaresNoURLs),
    Mutant("test_42_signed_url_expires", broken.URLsNeverExpire),
    Mutant("test_42_signed_url_is_for_one_method", broken.URLsAreForEveryMethod),
    Mutant("test_42_signed_url_is_for_one_key", broken.URLsAreForEveryKey),
    Mutant("test_42_signed_url_is_for_one_content_type", broken.URLsAreForEveryContentType),
    Mutant(ENCODED, broken.DecodesWhatItReads, content(gzip.compress(bytes(1000))), local=True),
    Mutant(ENCODED, broken.DecodesAndCutsAtTheStoredSize, content(gzip.compress(bytes(1000))), local=True),
    Mutant(APART, broken.NormalisesUnicode),
    Mutant(APART, broken.JoinsSlashes),
    Mutant(APART, broken.IgnoresCase),
    Mutant(APART, broken.DecodesPercents),
    Mutant(OWN, broken.NormalisesUnicode, key("e\u0301")),
    Mutant(OWN, broken.JoinsSlashes, key("a//b")),
    Mutant(OWN, broken.IgnoresCase, key("A")),
    Mutant(OWN, broken.StripsSlashes, key("a/")),
    Mutant(OWN, broken.DecodesPercents, key("%2e%2e/")),
    Mutant(OWN, broken.RefusesNamesOfDevices, key("CON")),
    Mutant(REFUSED, broken.TellsThatNoSuchKeyExists, key(".."), local=True),
    Mutant("test_44_what_is_not_a_key_is_refused_before_any_io", broken.LooksBeforeItChecks, key(""), local=True),
    Mutant("test_45_upload_of_a_missing_local_file_is_the_plain_error", broken.WrapsOSErrors, local=True),
    Mutant("test_45_download_makes_the_folder", broken.MakesNoFolders, local=True),
    Mutant("test_45_failed_download_leaves_what_was_there", broken.LeavesPartsOfDownloads, local=True),
    Mutant("test_46_twenty_at_once", broken.SharesABuffer),
    Mutant("test_46_event_loop_stays_free", broken.BlocksTheLoop),
]
Run = Callable[[CloudStorageContract, Mutant, type[CloudStorage]], Any]


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    """Run one of the contract's tests, on a folder of its own."""
    made: list[LocalStorageHarness] = []

    async def running(contract: CloudStorageContract, mutant: Mutant, storage: type[CloudStorage]) -> None:
        folder = tmp_path / f"local-{len(made)}"
        folder.mkdir()
        made.append(LocalStorageHarness(tmp_path / f"root-{len(made)}", storage))
        arguments = {**mutant.arguments, **({"tmp_path": folder} if mutant.local else {})}
        await getattr(contract, mutant.test)(made[-1], **arguments)

    yield running
    for harness in made:
        await harness.close()


def innermost(error: BaseException) -> list[BaseException]:
    """What a task group collected, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        return [inner for one in error.exceptions for inner in innermost(one)]
    return [error]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.test.split('_')[1]}-{mutant.storage.__name__}")
async def test_contract_sees_the_mutant(mutant: Mutant, run: Run) -> None:
    await run(Declared(), mutant, LocalCloudStorage)
    with pytest.raises((*SEEN, BaseExceptionGroup)) as caught:
        await run(Declared(), mutant, mutant.storage)
    assert all(isinstance(error, SEEN) for error in innermost(caught.value)), caught.value


async def test_contract_sees_urls_that_are_not_declared(run: Run) -> None:
    test = Mutant("test_42_signed_url_to_download", LocalCloudStorage)
    with pytest.raises(AssertionError, match="declare different capabilities"):
        await run(WithoutURLs(), test, LocalCloudStorage)
    with pytest.raises(pytest.fail.Exception):
        await run(WithoutURLs(), test, broken.SignsUndeclared)


@pytest.mark.parametrize("name", [name for name in dir(CloudStorageContract) if name.startswith("test_42")])
async def test_storage_without_urls_passes_by_saying_so(name: str, run: Run) -> None:
    await run(WithoutURLs(), Mutant(name, broken.DeclaresNoURLs), broken.DeclaresNoURLs)
