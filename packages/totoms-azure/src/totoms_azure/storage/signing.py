"""Signs URLs: with the account key or, where the credentials are tokens, with a user delegation key."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from azure.storage.blob import BlobClient, BlobSasPermissions, BlobServiceClient, UserDelegationKey, generate_blob_sas

from totoms.errors import Unsupported

_KEY_SECONDS: Final = 7 * 86_400 - 60
"""The validity of a user delegation key: Azure allows seven days
(https://learn.microsoft.com/rest/api/storageservices/get-user-delegation-key)."""
_CLOCK_SKEW: Final = timedelta(minutes=15)
"""How far Azure's clocks may be behind (https://learn.microsoft.com/azure/storage/common/storage-sas-overview)."""

_keys: dict[str, tuple[float, UserDelegationKey]] = {}
_guard: Final = threading.Lock()


def sign_url(service: BlobServiceClient, blob: BlobClient, method: Literal["GET", "PUT"], expires_in: int) -> str:
    """Return a URL that allows `method` on the blob. It may request a key from Azure: call it in a thread.

    Raises:
        Unsupported: The connection string has a shared access signature, which cannot sign.
    """
    if service.credential is None:
        raise Unsupported(
            "A shared access signature cannot sign URLs. Use the account key, or credentials that are tokens."
        )
    now = datetime.now(UTC)
    expiry = now + timedelta(seconds=expires_in)
    permission = BlobSasPermissions(read=True) if method == "GET" else BlobSasPermissions(create=True, write=True)
    key = getattr(service.credential, "account_key", None)
    signing: dict[str, Any] = {"account_key": key} if key else {"user_delegation_key": _delegation_key(service, expiry)}
    signature = generate_blob_sas(
        str(service.account_name),
        blob.container_name,
        blob.blob_name,
        permission=permission,
        expiry=expiry,
        start=now - _CLOCK_SKEW,
        protocol="https" if urlsplit(blob.url).scheme == "https" else None,
        **signing,
    )
    return f"{blob.url}?{signature}"


def _delegation_key(service: BlobServiceClient, expiry: datetime) -> UserDelegationKey:
    """Return a key that is valid for as long as the URL."""
    with _guard:
        until, key = _keys.get(service.url, (0.0, None))
        if key is None or until < expiry.timestamp():
            now = datetime.now(UTC)
            # A URL for seven days is valid for as long as the key: Azure gives none for longer.
            end = now + timedelta(seconds=_KEY_SECONDS)
            key = service.get_user_delegation_key(now - _CLOCK_SKEW, end)
            _keys[service.url] = (time.time() + _KEY_SECONDS, key)
        return key
