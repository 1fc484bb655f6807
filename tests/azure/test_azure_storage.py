"""Files on Blob Storage, what the contract does not see: broken downloads, copies, names, refusals, logs."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest
from azure.storage.blob import ContainerClient, ContainerSasPermissions, StandardBlobTier, generate_container_sas

from standins.azure.blob_proxy import BlobProxy, Fault
from standins.ports import free_port
from support import missing_buckets
from support.azure.storage import azurite, files
from totoms import CloudStorage
from totoms.context import new_cid
from totoms.errors import AccessDenied, BackendError, NotFound, Unavailable
from totoms.storage import driver as storage_driver
from totoms.testing.storage.tools import noise
from totoms_azure.storage import storage as blob_storage
from totoms_azure.storage.download import CHUNK

LARGE = noise(2 * CHUNK + 7)
USES: dict[str, Callable[[CloudStorage], object]] = {
    "stat": lambda bucket: bucket.stat("a-key"),
    "download": lambda bucket: bucket.get_file_bytes("a-key"),
    "upload": lambda bucket: bucket.upload_bytes(b"x", "a-key"),
    "blocks": lambda bucket: bucket.upload_bytes(b"x", "a-key", if_absent=True),
    "copy": lambda bucket: bucket.copy_file("a-key", "copy"),
    "delete": lambda bucket: bucket.delete_file("a-key"),
    "list": lambda bucket: bucket.list_files(),
}


def told(use: str, bucket: CloudStorage, error: type[BackendError]) -> BackendError:
    with pytest.raises(error) as caught:
        USES[use](bucket)
    assert type(caught.value) is error
    assert caught.value.resource == (bucket.bucket_name if use == "list" else "a-key")
    assert caught.value.resource in str(caught.value)
    assert caught.value.__cause__ is not None
    assert not isinstance(caught.value.__cause__, BackendError)
    return caught.value


# --- downloads ---


@pytest.mark.parametrize("cut", [0, 1_500_000], ids=["at once", "midway"])
@pytest.mark.parametrize("part", [0, 1], ids=["first", "second"])
def test_download_whose_connection_breaks_is_whole(
    bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient, cut: int, part: int
) -> None:
    operator.upload_blob("key", LARGE)
    with bucket.stream_file("key") as chunks:
        pieces = [next(chunks)] if part else []
        proxy.faults.append(Fault("GET", cut=cut))
        pieces += list(chunks)

    assert b"".join(pieces) == LARGE
    assert proxy.faults[0].times == 0


def test_part_whose_connection_breaks_is_whole(
    bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient
) -> None:
    operator.upload_blob("key", LARGE)
    proxy.faults.append(Fault("GET", cut=1000))

    with bucket.stream_file("key", 17, CHUNK + 5) as chunks:
        assert b"".join(chunks) == LARGE[17 : CHUNK + 5]


def test_download_that_breaks_again_and_again_is_reported(
    bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient
) -> None:
    operator.upload_blob("key", LARGE)
    with bucket.stream_file("key") as chunks:
        next(chunks)
        proxy.faults.append(Fault("GET", times=1000, cut=10))
        with pytest.raises(Unavailable) as caught:
            list(chunks)

    assert caught.value.resource == "key"
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("deleted", [False, True], ids=["replaced", "deleted"])
def test_download_never_goes_on_in_another_version(
    bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient, deleted: bool
) -> None:
    operator.upload_blob("key", LARGE)

    with bucket.stream_file("key") as chunks:
        next(chunks)
        if deleted:
            operator.delete_blob("key")
        else:
            operator.upload_blob("key", noise(len(LARGE), "new"), overwrite=True)
        with pytest.raises(Unavailable, match="replaced") as caught:
            list(chunks)

    assert caught.value.resource == "key"


def test_download_that_breaks_and_is_replaced_meanwhile_is_of_one_version(
    bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient
) -> None:
    new = noise(len(LARGE), "new")
    operator.upload_blob("key", LARGE)
    proxy.faults.append(Fault("GET", cut=1000))
    proxy.faults.append(Fault("GET", before=lambda: operator.upload_blob("key", new, overwrite=True)))

    try:
        assert bucket.get_file_bytes("key") in (LARGE, new)
    except Unavailable as error:
        assert "replaced" in str(error)  # noqa: PT017 - both are right
    assert proxy.faults[1].times == 0


# --- copies ---


def test_copy_is_of_one_version(bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient) -> None:
    operator.upload_blob("key", b"old", metadata={"version": "old"})

    def replace() -> None:
        operator.upload_blob("key", b"newer", overwrite=True, metadata={"version": "new"})

    proxy.faults.append(Fault("PUT", "copy", before=replace))

    etag = bucket.copy_file("key", "copy")

    assert bucket.get_file_bytes("copy") == b"newer"
    assert (bucket.stat("copy").etag, bucket.stat("copy").metadata) == (etag, {"version": "new"})
    assert proxy.faults[0].times == 0


def test_copy_of_what_is_replaced_again_and_again_is_reported(
    bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient
) -> None:
    operator.upload_blob("key", b"old")
    proxy.faults.append(
        Fault("PUT", "copy", times=1000, before=lambda: operator.upload_blob("key", b"newer", overwrite=True))
    )

    with pytest.raises(Unavailable, match="again and again") as caught:
        bucket.copy_file("key", "copy")

    assert caught.value.resource == "key"
    assert caught.value.__cause__ is not None
    assert not bucket.exists("copy")


def test_copy_whose_answer_is_lost_is_made(bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient) -> None:
    operator.upload_blob("key", b"old")
    proxy.faults.append(Fault("PUT", "copy", lose=True))

    assert bucket.copy_file("key", "copy") == bucket.stat("copy").etag


def test_delete_whose_answer_is_lost_is_made(bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient) -> None:
    operator.upload_blob("key", b"old")
    proxy.faults.append(Fault("DELETE", lose=True))

    bucket.delete_file("key")

    assert not bucket.exists("key")


# --- names ---


@pytest.mark.parametrize("key", ["a?b#c%2e", "a b/ü", "a%2Fb", "a+b&c=d", "a/b;v=1", "ключ/🗝", "a'\"b", "~a!$*(),"])
def test_key_is_itself_on_the_wire(bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient, key: str) -> None:
    bucket.upload_bytes(b"x", key, if_absent=True)
    copied = bucket.copy_file(key, "copied/" + key)

    assert [blob.name for blob in operator.list_blobs()] == sorted([key, "copied/" + key])
    assert list(bucket.list_files()) == sorted([key, "copied/" + key])
    assert bucket.get_file_bytes("copied/" + key) == b"x"
    assert bucket.stat("copied/" + key).etag == copied
    bucket.delete_file(key)
    assert not bucket.exists(key)


# --- what is not there ---


def test_missing_bucket_is_reported_by_name_and_a_missing_key_in_it_by_key(
    bucket: CloudStorage, proxy: BlobProxy
) -> None:
    missing = files("no-such-bucket", storage_connection_string=azurite.connection_string(proxy.port))
    uses: dict[str, Any] = {
        "upload": lambda: missing.upload_bytes(b"x", "key"),
        "blocks": lambda: missing.upload_bytes(LARGE, "key", if_absent=True),
        "delete": lambda: missing.delete_file("key"),
        "list": missing.list_files,
    }
    for what, use in uses.items():
        with pytest.raises(NotFound, match="no-such-bucket") as caught:
            use()
        assert caught.value.resource == "no-such-bucket", what
        assert caught.value.__cause__ is not None, what
    for key_uses in (missing.stat, lambda key: missing.copy_file(key, "copy")):
        with pytest.raises(NotFound) as caught:
            key_uses("key")
        assert caught.value.resource == "key"
    with pytest.raises(NotFound, match="'key'") as caught:
        bucket.stat("key")
    assert bucket.bucket_name in str(caught.value)


# --- refusals and outages ---


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "InvalidHeaderValue", BackendError),
        (403, "AuthorizationPermissionMismatch", AccessDenied),
        (401, "InvalidAuthenticationInfo", AccessDenied),
        (403, "AuthenticationFailed", AccessDenied),
        (403, "AccountIsDisabled", AccessDenied),
        (429, "TooManyRequests", Unavailable),
        (500, "InternalError", Unavailable),
        (503, "ServerBusy", Unavailable),
        (409, "AccountBeingCreated", None),
    ],
)
def test_answer_of_blob_storage(
    bucket: CloudStorage, proxy: BlobProxy, use: str, status: int, code: str, error: type[BackendError] | None
) -> None:
    proxy.faults += [
        Fault(method, times=10**6, status=status, code=code) for method in ("GET", "PUT", "HEAD", "DELETE")
    ]

    raised = told(use, bucket, error or BackendError)

    assert code in str(raised)


@pytest.mark.parametrize("use", USES)
def test_account_whose_key_is_another_is_denied(proxy: BlobProxy, operator: ContainerClient, use: str) -> None:
    string = azurite.connection_string(proxy.port).replace("Eby8", "AAAA")
    raised = told(use, files(operator.container_name, storage_connection_string=string), AccessDenied)

    assert "AAAA" not in repr(raised) + repr(raised.__cause__)


@pytest.mark.parametrize("use", USES)
def test_blob_storage_away(proxy: BlobProxy, use: str) -> None:
    told(use, files("a-bucket", storage_connection_string=azurite.connection_string(free_port())), Unavailable)


@pytest.mark.parametrize("use", USES)
def test_blob_storage_that_hangs_up(bucket: CloudStorage, proxy: BlobProxy, use: str) -> None:
    proxy.faults += [Fault(method, times=10**6, drop=True) for method in ("GET", "PUT", "HEAD", "DELETE")]
    told(use, bucket, Unavailable)


@pytest.mark.parametrize("use", USES)
def test_blob_storage_that_says_nothing(proxy: BlobProxy, monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    monkeypatch.setattr(blob_storage, "_CONNECTION", {**blob_storage._CONNECTION, "read_timeout": 0.1})
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        string = azurite.connection_string(deaf.getsockname()[1])
        told(use, files("a-bucket", storage_connection_string=string), Unavailable)


def test_what_is_tried_again_is_tried_again_within_seconds() -> None:
    options = blob_storage._OPTIONS
    waits = [
        options["initial_backoff"] + options["increment_base"] ** count + options["random_jitter_range"]
        for count in range(1, options["retry_total"] + 1)
    ]
    assert sum(waits) < 10


# --- logs ---


def everything(records: list[logging.LogRecord]) -> str:
    return repr([(vars(record), record.getMessage()) for record in records])


def sas_of(operator: ContainerClient) -> str:
    return str(
        generate_container_sas(
            azurite.ACCOUNT,
            operator.container_name,
            account_key=azurite.KEY,
            expiry="2099-01-01T00:00:00Z",
            permission=ContainerSasPermissions(read=True, write=True, create=True, delete=True, list=True),
        )
    )


@pytest.mark.parametrize("signed", [False, True], ids=["key", "signature"])
def test_neither_key_nor_signature_nor_content_is_logged(
    proxy: BlobProxy, operator: ContainerClient, caplog: pytest.LogCaptureFixture, signed: bool
) -> None:
    sas = sas_of(operator)
    string = azurite.connection_string(proxy.port)
    if signed:
        string = f"BlobEndpoint=http://127.0.0.1:{proxy.port}/{azurite.ACCOUNT};SharedAccessSignature={sas}"
    made = files(operator.container_name, storage_connection_string=string)
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "azure"):
        made.upload_bytes(b"the-canary", "key", if_absent=True)
        assert made.get_file_bytes("key") == b"the-canary"
        made.copy_file("key", "copy")
        urls = [] if signed else [made.signed_url("key")]
        with pytest.raises(NotFound) as caught:
            made.stat("missing")

    logged = everything(caplog.records) + repr(made) + repr(caught.value) + repr(caught.value.__cause__)
    assert "azure.core" in logged
    signatures = [text.rpartition("sig=")[2].partition("&")[0] for text in (sas, *urls)]
    for canary in (azurite.KEY, *signatures, "the-canary"):
        assert canary not in logged


@pytest.mark.parametrize("use", ["get_file_bytes", "exists"])
def test_missing_bucket_is_distinguished_in_the_log_once(
    bucket: CloudStorage, proxy: BlobProxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    monkeypatch.setattr(storage_driver, "_missing_buckets", set())
    there, missing = (
        bucket,
        files(f"missing-{new_cid()}", storage_connection_string=azurite.connection_string(proxy.port)),
    )
    missing_buckets.check_log(caplog, there, missing, use)


def test_copy_keeps_tier_and_tags(bucket: CloudStorage, operator: ContainerClient) -> None:
    operator.upload_blob("key", b"x", standard_blob_tier=StandardBlobTier.COOL, tags={"kind": "post", "a b": "c/d"})
    operator.upload_blob("plain", b"x")
    bucket.copy_file("key", "copy")
    bucket.copy_file("plain", "plain copy")
    copy, plain = operator.get_blob_client("copy"), operator.get_blob_client("plain copy")
    assert copy.get_blob_tags() == {"kind": "post", "a b": "c/d"}
    assert copy.get_blob_properties().blob_tier == "Cool"
    assert plain.get_blob_properties().blob_tier_inferred
    assert plain.get_blob_tags() == {}
