"""The contract of the storage: behaviours 33 to 46."""

from __future__ import annotations

from totoms.testing.storage_conditions import StorageConditions
from totoms.testing.storage_content import StorageContent
from totoms.testing.storage_keys import StorageKeys
from totoms.testing.storage_listing import StorageListing
from totoms.testing.storage_urls import StorageURLs


class CloudStorageContract(StorageContent, StorageListing, StorageKeys, StorageConditions, StorageURLs):
    """What a `CloudStorage` does. Provide the fixture ``harness``, a `CloudStorageHarness`.

    `capabilities` are those of the storage's class; a storage without ``signed_urls`` must say Unsupported.
    """
