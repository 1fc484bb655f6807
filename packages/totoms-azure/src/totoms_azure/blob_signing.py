"""Who signs URLs: the account's key, or, where the credentials are tokens, a key that Azure lends to their holder."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from azure.storage.blob import BlobClient, BlobSasPermissions, BlobServiceClient, UserDelegationKey, generate_blob_sas

from totoms.errors import Unsupported

_LENT_SECONDS: Final = 7 * 86_400 - 60
"""How long a key is lent: Azure allows seven days
(https://learn.microsoft.com/rest/api/storageservices/get-user-delegation-key)."""
_CLOCKS: Final = timedelta(minutes=15)
"""By which Azure's clocks may be behind ours (https://learn.microsoft.com/azure/storage/common/storage-sas-overview)."""

_lent: dict[str, tuple[float, UserDelegationKey]] = {}
_guard: Final = threading.Lock()


def sign_url(service: BlobServiceClient, blob: BlobClient, method: Literal["GET", "PUT"], expires_in: int) -> str:
    """Return a URL with which anybody may do `method` on the blob. It may ask Azure for a key: call it in a thread.

    Raises:
        Unsupported: The connection string has a shared access signature, which can sign no other.
    """
    if service.credential is None:
        raise Unsupported(
            "With a shared access signature no URL can be signed: that takes the account's key, or tokens."
        )
    now = datetime.now(UTC)
    expiry = now + timedelta(seconds=expires_in)
    permission = BlobSasPermissions(read=True) if method == "GET" else BlobSasPermissions(create=True, write=True)
    key = getattr(service.credential, "account_key", None)
    signing: dict[str, Any] = {"account_key": key} if key else {"user_delegation_key": _delegated(service, expiry)}
    signature = generate_blob_sas(
        str(service.account_name), blob.container_name, blob.blob_name, permission=permission, expiry=expiry,
        start=now - _CLOCKS, protocol="https" if urlsplit(blob.url).scheme == "https" else None, **signing,
    )  # fmt: skip
    return f"{blob.url}?{signature}"


def _delegated(service: BlobServiceClient, expiry: datetime) -> UserDelegationKey:
    """Return a key that lives as long as the URL shall."""
    with _guard:
        until, key = _lent.get(service.url, (0.0, None))
        if key is None or until < expiry.timestamp():
            now = datetime.now(UTC)
            # A URL that shall live for seven days gets what is left of a key's: Azure lends none for longer.
            end = now + timedelta(seconds=_LENT_SECONDS)
            key = service.get_user_delegation_key(now - _CLOCKS, end)
            _lent[service.url] = (time.time() + _LENT_SECONDS, key)
        return key
