"""Uploads to Blob Storage: lost answers, conditions, blocks that another upload drops, and leftovers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, BinaryIO

import pytest
from azure.storage.blob import ContainerClient

from standins.azure.blob_proxy import BlobProxy, Fault
from support.azure.storage import azurite, files
from totoms import CloudStorage
from totoms.errors import PreconditionFailed, Unavailable
from totoms.plugin import read_chunks
from totoms.testing.storage.tools import noise
from totoms_azure.storage import storage
from totoms_azure.storage.upload import BLOCK

LARGE = noise(2 * BLOCK + 7)
COMMIT = "comp=blocklist"
STAGE = "comp=block&"
CONDITIONS = pytest.mark.parametrize("condition", ["if_absent", "if_match", None])
CONTENTS = pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])


def given(bucket: CloudStorage, condition: str | None) -> dict[str, Any]:
    """Return the condition as an argument, after making what it needs."""
    if condition == "if_match":
        return {"if_match": bucket.upload_bytes(b"old", "key")}
    return {"if_absent": True} if condition else {}


def kept(operator: ContainerClient) -> bytes:
    return bytes(operator.download_blob("key").readall())


def test_large_file_goes_up_in_blocks_and_comes_back(bucket: CloudStorage, proxy: BlobProxy) -> None:
    etag = bucket.upload_bytes(LARGE, "large", content_type="a/b", metadata={"a": "1"})

    info = bucket.stat("large")
    assert (info.etag, info.size, info.content_type, info.metadata) == (etag, len(LARGE), "a/b", {"a": "1"})
    assert bucket.get_file_bytes("large") == LARGE
    assert (proxy.count("PUT", STAGE), proxy.count("PUT", COMMIT)) == (3, 1)


def test_small_file_goes_up_in_one_request(bucket: CloudStorage, proxy: BlobProxy) -> None:
    bucket.upload_bytes(b"small", "key")

    assert [method for method, _ in proxy.asked] == ["PUT"]


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
@pytest.mark.parametrize("condition", [{}, {"if_absent": True}], ids=["", "if absent"])
def test_file_of_about_a_blocks_size_is_whole(bucket: CloudStorage, size: int, condition: dict[str, Any]) -> None:
    content = noise(size)

    bucket.upload_stream([content[:9], content[9:]], "key", **condition)

    assert bucket.get_file_bytes("key") == content


@CONTENTS
@CONDITIONS
def test_answer_that_is_lost_does_not_turn_success_into_failure(
    bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient, content: bytes, condition: str | None
) -> None:
    wanted = given(bucket, condition)
    lost = Fault("PUT", "!comp=" if content == b"small" and condition is None else COMMIT, lose=True)
    proxy.faults.append(lost)

    etag = bucket.upload_bytes(content, "key", **wanted)

    assert lost.times == 0
    assert etag == operator.get_blob_client("key").get_blob_properties().etag
    assert kept(operator) == content


@pytest.mark.parametrize("condition", ["if_absent", "if_match"])
def test_lost_answer_followed_by_another_write_is_not_a_success(
    bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient, azurite_port: int, condition: str
) -> None:
    wanted = given(bucket, condition)
    others = files(operator.container_name, storage_connection_string=azurite.connection_string(azurite_port))

    def theirs() -> None:  # in blocks, as ours
        others.upload_bytes(b"theirs", "key", if_match=others.stat("key").etag)

    proxy.faults.append(Fault("PUT", COMMIT, lose=True))
    proxy.faults.append(Fault("PUT", COMMIT, before=theirs))

    with pytest.raises(PreconditionFailed) as caught:
        bucket.upload_bytes(b"ours", "key", **wanted)

    assert caught.value.resource == "key"
    assert caught.value.__cause__ is not None
    assert kept(operator) == b"theirs"


@pytest.mark.parametrize("condition", ["if_absent", "if_match"])
def test_condition_is_decided_when_the_file_is_put_in_place(
    bucket: CloudStorage, operator: ContainerClient, condition: str
) -> None:
    wanted = given(bucket, condition)

    def chunks() -> Iterator[bytes]:
        yield LARGE
        operator.upload_blob("key", b"theirs", overwrite=True)

    with pytest.raises(PreconditionFailed):
        bucket.upload_stream(chunks(), "key", **wanted)
    assert kept(operator) == b"theirs"


@pytest.mark.parametrize(
    "fault",
    [{"status": 503, "code": "ServerBusy"}, {"status": 500, "code": "InternalError"}, {"drop": True}, {"lose": True}],
    ids=["503", "500", "dropped", "answer lost"],
)
@pytest.mark.parametrize("which", [STAGE, COMMIT])
@CONDITIONS
def test_request_that_fails_twice_is_sent_again(
    bucket: CloudStorage, proxy: BlobProxy, fault: dict[str, Any], which: str, condition: str | None
) -> None:
    wanted = given(bucket, condition)
    made = Fault("PUT", which, times=2, **fault)
    proxy.faults.append(made)

    etag = bucket.upload_bytes(LARGE, "key", **wanted)

    assert made.times == 0
    assert bucket.stat("key").etag == etag
    assert bucket.get_file_bytes("key") == LARGE


def test_upload_that_fails_again_and_again_is_unavailable(
    bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient
) -> None:
    operator.upload_blob("key", b"old")
    proxy.faults.append(Fault("PUT", "", times=1000, status=503, code="ServerBusy"))

    for content in (b"small", LARGE):
        with pytest.raises(Unavailable, match="ServerBusy") as caught:
            bucket.upload_bytes(content, "key")
        assert caught.value.resource == "key"
        assert caught.value.__cause__ is not None
    assert kept(operator) == b"old"


@CONTENTS
@CONDITIONS
def test_source_that_fails_leaves_what_was_there(
    bucket: CloudStorage, operator: ContainerClient, content: bytes, condition: str | None
) -> None:
    wanted = given(bucket, condition)
    before = [blob.name for blob in operator.list_blobs()]

    def chunks() -> Iterator[bytes]:
        yield content
        raise ConnectionResetError("the caller went away")

    with pytest.raises(ConnectionResetError, match="the caller"):
        bucket.upload_stream(chunks(), "key", **wanted)

    assert [blob.name for blob in operator.list_blobs()] == before
    assert not before or kept(operator) == b"old"


async def test_upload_that_is_cancelled_leaves_what_was_there(
    bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bucket.upload_bytes_async(b"old", "key")
    staged, loop = asyncio.Event(), asyncio.get_running_loop()
    proxy.faults.append(Fault("PUT", STAGE, before=lambda: loop.call_soon_threadsafe(staged.set)))
    ended = threading.Event()

    def watched(source: BinaryIO, size: int) -> Iterator[bytes]:
        try:
            yield from read_chunks(source, size)
        except BaseException:
            ended.set()
            raise

    monkeypatch.setattr(storage, "read_chunks", watched)

    async def chunks() -> AsyncIterator[bytes]:
        yield LARGE
        await asyncio.Event().wait()

    upload = asyncio.create_task(bucket.upload_stream_async(chunks(), "key"))
    await asyncio.wait_for(staged.wait(), 120)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload

    assert await asyncio.to_thread(ended.wait, 30)
    assert proxy.count("PUT", COMMIT) == 0
    assert await asyncio.to_thread(kept, operator) == b"old"


def dropped(operator: ContainerClient, write: bool) -> Fault:
    """Answer as Blob Storage does, and Azurite does not, when another's commit has dropped the blocks."""

    def theirs() -> None:
        if write:
            operator.upload_blob("key", b"theirs", overwrite=True)

    return Fault("PUT", COMMIT, status=400, code="InvalidBlockList", before=theirs)


@pytest.mark.parametrize(
    ("condition", "error"), [("if_absent", PreconditionFailed), ("if_match", PreconditionFailed), (None, Unavailable)]
)
def test_blocks_that_anothers_upload_dropped_are_reported(
    bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient, condition: str | None, error: type[Exception]
) -> None:
    wanted = given(bucket, condition)
    proxy.faults.append(dropped(operator, write=True))

    with pytest.raises(error, match="'key'") as caught:
        bucket.upload_bytes(LARGE, "key", **wanted)

    assert caught.value.__cause__ is not None
    assert kept(operator) == b"theirs"


@CONDITIONS
def test_blocks_that_are_gone_while_the_condition_holds_are_unavailable(
    bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient, condition: str | None
) -> None:
    wanted = given(bucket, condition)
    proxy.faults.append(dropped(operator, write=False))

    with pytest.raises(Unavailable, match="Another upload"):
        bucket.upload_bytes(LARGE, "key", **wanted)


@CONDITIONS
def test_blocks_that_are_gone_because_the_list_was_committed_are_a_success(
    bucket: CloudStorage, proxy: BlobProxy, operator: ContainerClient, condition: str | None
) -> None:
    wanted = given(bucket, condition)
    proxy.faults.append(Fault("PUT", COMMIT, lose=True))
    proxy.faults.append(dropped(operator, write=False))

    etag = bucket.upload_bytes(LARGE, "key", **wanted)

    assert etag == operator.get_blob_client("key").get_blob_properties().etag
    assert kept(operator) == LARGE


@pytest.mark.parametrize(
    "etag", ["of nobody", "*", "0x8D", "", '"', '""', 'W/"0x8D"', '"0x8D', '"a b"', "x" * 5000, '"' + "0" * 65 + '"']
)
def test_invalid_etag_matches_no_file_and_is_not_sent(bucket: CloudStorage, proxy: BlobProxy, etag: str) -> None:
    with pytest.raises(PreconditionFailed):
        bucket.upload_bytes(b"new", "key", if_match=etag)

    assert proxy.asked == []


def test_etag_of_no_object_matches_nothing(bucket: CloudStorage, operator: ContainerClient) -> None:
    bucket.upload_bytes(b"old", "key")

    for key in ("key", "missing"):
        with pytest.raises(PreconditionFailed):
            bucket.upload_bytes(b"new", key, if_match='"0x8D0000000000000"')

    assert kept(operator) == b"old"
    assert not bucket.exists("missing")
