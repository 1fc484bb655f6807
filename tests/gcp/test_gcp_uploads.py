"""Uploads to Cloud Storage: sessions, broken connections, lost answers, conditions, and what a failure leaves."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from standins.gcp.gcs_objects import Fault, Store
from totoms import CloudStorage
from totoms.errors import PreconditionFailed, Unavailable
from totoms.testing.storage.tools import noise
from totoms_gcp import clients
from totoms_gcp.storage.upload import PART

LARGE = noise(2 * PART + 7)
MIB = 1024 * 1024
RESUMABLE = "upload_id="


def test_large_file_is_uploaded_in_a_session_and_read_back(bucket: CloudStorage, store: Store) -> None:
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
        Fault("PUT", RESUMABLE, status=503),
        Fault("PUT", RESUMABLE, status=429),
        Fault("PUT", RESUMABLE, drop=True),
        Fault("PUT", RESUMABLE, lose=True),
        Fault("PUT", RESUMABLE, keep=5 * MIB + 1),
        Fault("PUT", RESUMABLE, keep=0),
        Fault("PUT", RESUMABLE, times=3, keep=MIB),
        Fault("PUT", RESUMABLE, cut=0),
    ],
    ids=["503", "429", "dropped", "answer lost", "part of it kept", "nothing kept", "little by little", "cut"],
)
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


def test_session_that_is_lost_is_unavailable(bucket: CloudStorage, store: Store) -> None:
    store.faults.append(Fault("PUT", RESUMABLE, status=410))

    with pytest.raises(Unavailable, match="lost the upload of 'key'"):
        bucket.upload_bytes(LARGE, "key")

    assert not bucket.exists("key")


def test_part_that_took_longer_than_tries_may_goes_on(
    bucket: CloudStorage, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "RETRY", clients.RETRY.with_timeout(0.0))
    store.faults.append(Fault("PUT", RESUMABLE, times=2, keep=5 * MIB))

    bucket.upload_bytes(LARGE, "key", if_absent=True)

    assert bucket.get_file_bytes("key") == LARGE


def test_upload_of_which_nothing_is_kept_is_aborted(
    bucket: CloudStorage, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deaf(*_given: Any) -> Any:
        return 0, None

    monkeypatch.setattr(store, "add", deaf)

    with pytest.raises(Unavailable) as caught:
        bucket.upload_bytes(LARGE, "key")

    assert caught.value.resource == "key"
    assert store.sessions == {}


@pytest.mark.parametrize("kept", [0, 7 * MIB, 100 * MIB])
def test_session_that_kept_other_than_was_sent_is_unavailable(bucket: CloudStorage, store: Store, kept: int) -> None:
    add, calls = store.add, []

    def forgetful(*given: Any) -> Any:
        calls.append(given)
        return add(*given) if len(calls) != 2 else (kept, None)

    store.add = forgetful  # type: ignore[method-assign]

    with pytest.raises(Unavailable, match="lost the upload of 'key'"):
        bucket.upload_bytes(LARGE, "key")

    assert not bucket.exists("key")


async def test_upload_that_is_cancelled_leaves_what_was_there_and_no_session(
    bucket: CloudStorage, store: Store
) -> None:
    bucket.upload_bytes(b"old", "key")
    sent, ended = asyncio.Event(), threading.Event()
    loop, sessions = asyncio.get_running_loop(), store.sessions

    class Watched(dict[str, Any]):
        def pop(self, *given: Any) -> Any:
            ended.set()
            return super().pop(*given)

    store.sessions = Watched(sessions)
    add = store.add

    def watched(*given: Any) -> Any:
        loop.call_soon_threadsafe(sent.set)
        return add(*given)

    store.add = watched  # type: ignore[method-assign]

    async def chunks() -> AsyncIterator[bytes]:
        yield LARGE
        await asyncio.Event().wait()

    upload = asyncio.create_task(bucket.upload_stream_async(chunks(), "key"))
    await asyncio.wait_for(sent.wait(), 120)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload

    assert await asyncio.to_thread(ended.wait, 30)
    assert store.sessions == {}
    assert bucket.get_file_bytes("key") == b"old"


def test_upload_of_a_process_that_is_killed_leaves_what_was_there(bucket: CloudStorage, store: Store) -> None:
    bucket.upload_bytes(b"old", "key")
    program = """
import sys
from totoms import CloudStorage
def chunks():
    yield bytes(40 * 1024 * 1024)
    print("sent", flush=True)
    sys.stdin.read()
CloudStorage("a-bucket").upload_stream(chunks(), "key")
"""
    environment = {**os.environ, "HYPERSCALER": "gcp", "GCP_PID": "project-one"}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sent\n"
        process.kill()

    assert len(store.sessions) == 1
    assert bucket.get_file_bytes("key") == b"old"
    bucket.upload_bytes(b"new", "key", if_match=bucket.stat("key").etag)


def test_refusal_for_another_reason_is_not_reported_as_a_failed_condition(bucket: CloudStorage, store: Store) -> None:
    store.faults.append(Fault("POST", "uploadType", status=412, message="Policy of the organisation."))

    with pytest.raises(PreconditionFailed) as caught:
        bucket.upload_bytes(b"x", "key")

    assert "has changed" not in str(caught.value)
