"""Files on Cloud Storage, what the contract does not see: checksums, broken downloads, copies, etags, buckets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from standins.gcp.gcs import _Handler
from standins.gcp.gcs_objects import REWRITE_STEP, Fault, Refused, Store
from support import missing_buckets
from totoms import CloudStorage
from totoms.errors import BackendError, CorruptData, NotFound, PreconditionFailed, Unavailable
from totoms.storage import driver as storage_driver
from totoms.testing.storage.tools import noise
from totoms_gcp import clients
from totoms_gcp.storage.upload import PART

LARGE = noise(2 * PART + 7)
MIB = 1024 * 1024


def test_download_goes_on_where_the_connection_broke(bucket: CloudStorage, store: Store) -> None:
    content = noise(4_000_000)
    bucket.upload_bytes(content, "key")
    store.faults.append(Fault("GET", "alt=media", times=2, cut=1_500_000))

    assert bucket.get_file_bytes("key") == content
    assert b"".join(bucket.stream_file("key", 17, 3_999_000)) == content[17:3_999_000]
    assert store.faults[0].times == 0


def test_download_that_breaks_again_and_again_is_unavailable(bucket: CloudStorage, store: Store) -> None:
    bucket.upload_bytes(noise(3_000_000), "key")
    store.faults.append(Fault("GET", "alt=media", times=100, cut=0))

    with bucket.stream_file("key") as chunks, pytest.raises(Unavailable) as caught:
        list(chunks)

    assert caught.value.resource == "key"
    assert caught.value.__cause__ is not None
    assert store.faults[0].times > 90


def test_download_never_goes_on_in_another_generation(bucket: CloudStorage, store: Store) -> None:
    bucket.upload_bytes(noise(3_000_000, "old"), "key")
    store.faults.append(Fault("GET", "alt=media", cut=1_500_000))

    with bucket.stream_file("key") as chunks:
        next(chunks)
        bucket.upload_bytes(noise(3_000_000, "new"), "key")
        with pytest.raises(Unavailable, match="replaced"):
            list(chunks)


def test_whole_file_in_place_of_a_part_is_refused(
    bucket: CloudStorage, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.upload_bytes(b"0123456789", "key")

    def whole(handler: Any, found: Any) -> Any:
        return 200, memoryview(found.content), {"X-Goog-Generation": str(found.generation)}

    monkeypatch.setattr(_Handler, "_media", whole)

    with pytest.raises(BackendError, match="key"):
        b"".join(bucket.stream_file("key", 3, 5))


def test_download_that_is_damaged_on_the_way_is_corrupt(bucket: CloudStorage, store: Store, tmp_path: Path) -> None:
    bucket.upload_bytes(noise(3_000_000), "key")
    store.faults.append(Fault("GET", "alt=media", times=2, damage=True))

    with pytest.raises(CorruptData, match="key"):
        bucket.get_file_bytes("key")
    with pytest.raises(CorruptData, match="key"):
        bucket.download_file("key", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_stream_that_is_left_gives_its_connection_back(bucket: CloudStorage) -> None:
    bucket.upload_bytes(LARGE, "key")

    for _ in range(2 * clients.CONNECTIONS):
        with bucket.stream_file("key") as chunks:
            next(chunks)

    assert bucket.exists("key")


def test_large_file_is_copied_in_steps(bucket: CloudStorage, store: Store) -> None:
    bucket.upload_bytes(LARGE, "a b/ü?&", content_type="a/b", metadata={"a": "1"})
    before = store.calls["POST"]

    etag = bucket.copy_file("a b/ü?&", "copy")

    info = bucket.stat("copy")
    assert (info.etag, info.content_type, info.metadata, info.size) == (etag, "a/b", {"a": "1"}, len(LARGE))
    assert bucket.get_file_bytes("copy") == LARGE
    assert store.calls["POST"] - before == -(-len(LARGE) // REWRITE_STEP)


def test_copy_is_of_one_generation(bucket: CloudStorage, store: Store) -> None:
    bucket.upload_bytes(b"old", "key", metadata={"version": "old"})
    rewrite, replaced = store.rewrite, []

    def between(*given: Any) -> Any:
        if not replaced:
            replaced.append(True)
            store.write("a-bucket", {"name": "key", "metadata": {"version": "new"}}, b"newer", {})
        return rewrite(*given)

    store.rewrite = between  # type: ignore[method-assign]
    bucket.copy_file("key", "copy")

    assert bucket.get_file_bytes("copy") == b"newer"
    assert bucket.stat("copy").metadata == {"version": "new"}


def test_copy_of_what_is_replaced_again_and_again_is_unavailable(bucket: CloudStorage, store: Store) -> None:
    bucket.upload_bytes(b"old", "key")
    rewrite = store.rewrite

    def between(*given: Any) -> Any:
        store.write("a-bucket", {"name": "key"}, b"newer", {})
        return rewrite(*given)

    store.rewrite = between  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="again and again") as caught:
        bucket.copy_file("key", "copy")

    assert caught.value.resource == "key"
    assert caught.value.__cause__ is not None
    assert not bucket.exists("copy")


@pytest.mark.parametrize(
    "etag", ["of nobody", "*", "0", "-1", "1e3", "٣", "x" * 5000, "9" * 5000, "9" * 19, "", "0{etag}"]
)
def test_invalid_etag_matches_no_file(bucket: CloudStorage, etag: str) -> None:
    etag = etag.replace("{etag}", bucket.upload_bytes(b"old", "key"))

    for key in ("key", "missing"):
        with pytest.raises(PreconditionFailed):
            bucket.upload_bytes(b"new", key, if_match=etag)

    assert bucket.get_file_bytes("key") == b"old"
    assert not bucket.exists("missing")


def test_missing_bucket_is_named_and_so_is_a_missing_key(bucket: CloudStorage) -> None:
    missing = CloudStorage("no-such-bucket", environment=bucket.environment)
    uses: dict[str, Any] = {
        "upload": lambda: missing.upload_bytes(b"x", "key"),
        "session": lambda: missing.upload_bytes(LARGE, "key"),
        "delete": lambda: missing.delete_file("key"),
        "list": missing.list_files,
    }
    for what, use in uses.items():
        with pytest.raises(NotFound, match="no-such-bucket") as caught:
            use()
        assert caught.value.resource == "no-such-bucket", what
        assert caught.value.__cause__ is not None, what
    with pytest.raises(NotFound) as caught:
        missing.stat("key")
    assert caught.value.resource == "key"


def test_upload_that_arrives_as_something_else_is_refused(
    bucket: CloudStorage, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*given: Any) -> Any:
        raise Refused(400, "Provided CRC32C does not match calculated CRC32C.")

    monkeypatch.setattr(store, "write", damaged)

    with pytest.raises(Exception, match="'key'") as caught:
        bucket.upload_bytes(LARGE, "key")
    assert "CRC32C" in str(caught.value.__cause__)


def test_checksum_is_sent_with_a_large_file(bucket: CloudStorage, store: Store) -> None:
    sent = []
    add = store.add

    def watched(name: str, span: str, body: bytes, sent_hash: str) -> Any:
        sent.append(sent_hash)
        return add(name, span, body, sent_hash)

    store.add = watched  # type: ignore[method-assign]
    bucket.upload_bytes(LARGE, "key")

    found = store.find("a-bucket", "key")
    assert sent == ["", "", f"crc32c={found.crc32c}"]


@pytest.mark.parametrize("use", ["get_file_bytes", "exists"])
def test_missing_bucket_is_logged_once(
    bucket: CloudStorage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    monkeypatch.setattr(storage_driver, "_missing_buckets", set())
    there, missing = bucket, CloudStorage("b-bucket", environment=bucket.environment)
    missing_buckets.check_log(caplog, there, missing, use)


def test_copy_keeps_storage_class_and_key(bucket: CloudStorage, store: Store) -> None:
    key = "projects/p/locations/europe/keyRings/r/cryptoKeys/k"
    head = {"name": "key", "contentType": "a/b", "storageClass": "NEARLINE", "metadata": {"a": "b"}}
    store.write("a-bucket", head, b"x", {"kmsKeyName": key})
    bucket.copy_file("key", "copy")
    copy = store.find("a-bucket", "copy")
    assert (copy.storage_class, copy.kms_key, copy.content_type) == ("NEARLINE", key, "a/b")
    assert copy.metadata == {"a": "b"}
