"""The contract of the storage: behaviours 33 to 46, and 57."""

from __future__ import annotations

from totoms.testing.storage.conditions import StorageConditions
from totoms.testing.storage.content import StorageContent
from totoms.testing.storage.encodings import StorageEncodings
from totoms.testing.storage.keys import StorageKeys
from totoms.testing.storage.listing import StorageListing
from totoms.testing.storage.urls import StorageURLs


class CloudStorageContract(
    StorageContent, StorageListing, StorageKeys, StorageConditions, StorageEncodings, StorageURLs
):
    """The behaviours of a `CloudStorage`. Provide the fixture ``harness``, a `CloudStorageHarness`.

    Declare the `capabilities` of the storage's class; without ``signed_urls`` signing must raise `Unsupported`.
    """
