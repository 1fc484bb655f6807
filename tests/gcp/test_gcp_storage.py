"""Files on Cloud Storage: what the storage contract does not see. Sessions, broken connections, lost answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gcp_storage_kit import settings
from gcs import GCSStandIn
from gcs_objects import REWRITE_STEP, Fault, Refused, Store
from totoms import CloudStorage, TotoEnvironment
from totoms.errors import CorruptData, NotFound, PreconditionFailed, Unavailable
from totoms.testing.storage_tools import noise
from totoms_gcp import clients, gcs_calls
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.gcs_upload import PART

LARGE = noise(2 * PART + 7)
MIB = 1024 * 1024
RESUMABLE = "upload_id="


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GCSStandIn]:
    # What is tried again is tried again at once.
    monkeypatch.setattr(gcs_calls, "_PAUSES", (0.01, 0.01))
    monkeypatch.setattr(gcs_calls, "RETRY", gcs_calls.RETRY.with_delay(0.01, 0.01).with_timeout(0.5))
    with GCSStandIn() as made, settings(made.address):
        made.store.buckets["a-bucket"] = {}
        yield made


@pytest.fixture
def store(server: GCSStandIn) -> Store:
    return server.store


@pytest.fixture
def bucket(server: GCSStandIn) -> CloudStorage:
    return CloudStorage("a-bucket", environment=TotoEnvironment("gcp", GCPConfiguration(project_id="project-one")))


def test_large_file_goes_up_in_a_session_and_comes_back(bucket: CloudStorage, store: Store) -> None:
    etag = bucket.upload_bytes(LARGE, "large", content_type="a/b", metadata={"a": "1"})

    info = bucket.stat("large")
    assert (info.etag, info.size, info.content_type, info.metadata) == (etag, len(LARGE), "a/b", {"a": "1"})
    assert bucket.get_file_bytes("large") == LARGE
    assert store.calls["PUT"] == 3


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, PART - 1, PART, PART + 1, 2 * PART])
@pytest.mark.parametrize("condition", [{}, {"if_absent": True}], ids=["", "if absent"])
def test_file_of_about_a_parts_size_is_whole(bucket: CloudStorage, size: int, condition: dict[str, Any]) -> None:
    content = noise(size)

    bucket.upload_stream([content[:9], content[9:]], "key", **condition)

    assert bucket.get_file_bytes("key") == content


def test_condition_is_decided_when_the_file_is_put_in_place(bucket: CloudStorage) -> None:
    etag = bucket.upload_bytes(b"old", "key")

    def chunks() -> Iterator[bytes]:
        yield LARGE
        bucket.upload_bytes(b"new", "key")

    for condition in ({"if_match": etag}, {"if_absent": True}):
        with pytest.raises(PreconditionFailed):
            bucket.upload_stream(chunks(), "key", **condition)  # type: ignore[arg-type]
    assert bucket.get_file_bytes("key") == b"new"


def test_upload_whose_source_fails_leaves_no_session(bucket: CloudStorage, store: Store) -> None:
    def chunks() -> Iterator[bytes]:
        yield LARGE
        raise ConnectionResetError("the caller went away")

    with pytest.raises(ConnectionResetError, match="the caller"):
        bucket.upload_stream(chunks(), "key")

    assert store.sessions == {}
    assert not bucket.exists("key")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT", RESUMABLE, status=503), Fault("PUT", RESUMABLE, status=429), Fault("PUT", RESUMABLE, drop=True),
        Fault("PUT", RESUMABLE, lose=True), Fault("PUT", RESUMABLE, keep=5 * MIB + 1), Fault("PUT", RESUMABLE, keep=0),
        Fault("PUT", RESUMABLE, times=3, keep=MIB), Fault("PUT", RESUMABLE, cut=0),
    ],
    ids=["503", "429", "dropped", "answer lost", "part of it kept", "nothing kept", "little by little", "cut"],
)  # fmt: skip
@pytest.mark.parametrize("condition", [{}, {"if_absent": True}], ids=["", "if absent"])
def test_upload_goes_on_where_it_was(
    bucket: CloudStorage, store: Store, fault: Fault, condition: dict[str, Any]
) -> None:
    fault = Fault(**vars(fault))  # they are shared by parameters
    store.faults.append(fault)

    etag = bucket.upload_bytes(LARGE, "key", **condition)

    assert fault.times == 0
    assert bucket.stat("key").etag == etag
    assert bucket.get_file_bytes("key") == LARGE


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("condition", ["if_absent", "if_match", None])
def test_answer_that_is_lost_does_not_turn_success_into_failure(
    bucket: CloudStorage, store: Store, content: bytes, condition: str | None
) -> None:
    given: dict[str, Any] = {"if_absent": True} if condition == "if_absent" else {}
    if condition == "if_match":
        given = {"if_match": bucket.upload_bytes(b"old", "key")}
    small = content == b"small" and condition is None
    last = Fault("POST" if small else "PUT", "uploadType=multipart" if small else RESUMABLE, lose=True)
    store.faults.append(last)

    etag = bucket.upload_bytes(content, "key", **given)

    assert last.times == 0
    assert bucket.stat("key").etag == etag
    assert bucket.get_file_bytes("key") == content


def test_session_that_is_lost_is_told(bucket: CloudStorage, store: Store) -> None:
    store.faults.append(Fault("PUT", RESUMABLE, status=410))

    with pytest.raises(Unavailable, match="lost the upload of 'key'"):
        bucket.upload_bytes(LARGE, "key")

    assert not bucket.exists("key")


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


def test_download_goes_on_where_the_connection_broke(bucket: CloudStorage, store: Store) -> None:
    content = noise(4_000_000)
    bucket.upload_bytes(content, "key")
    store.faults.append(Fault("GET", "alt=media", times=2, cut=1_500_000))

    assert bucket.get_file_bytes("key") == content
    assert b"".join(bucket.stream_file("key", 17, 3_999_000)) == content[17:3_999_000]
    assert store.faults[0].times == 0


def test_download_that_breaks_again_and_again_is_told(bucket: CloudStorage, store: Store) -> None:
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


def test_download_that_is_damaged_on_the_way_is_told(bucket: CloudStorage, store: Store, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("etag", ["of nobody", "*", "0", "-1", "1e3", "٣", "x" * 5000, ""])
def test_etag_that_is_none_holds_for_nothing(bucket: CloudStorage, etag: str) -> None:
    bucket.upload_bytes(b"old", "key")

    for key in ("key", "missing"):
        with pytest.raises(PreconditionFailed):
            bucket.upload_bytes(b"new", key, if_match=etag)

    assert bucket.get_file_bytes("key") == b"old"
    assert not bucket.exists("missing")


def test_missing_bucket_is_told_by_name_and_a_missing_key_in_it_by_key(bucket: CloudStorage) -> None:
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
