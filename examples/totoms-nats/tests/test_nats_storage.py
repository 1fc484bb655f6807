"""Files in NATS' object store: what the contracts cannot know of, because it is NATS' own."""

from __future__ import annotations

import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from nats.js import JetStreamContext

from totoms.errors import CorruptData, NotFound, PreconditionFailed, Unsupported
from totoms_nats.storage.objects import CHUNK


def chunks_in(installation: Any, name: str) -> int:
    stream, subject = f"OBJ_{name}", f"$O.{name}.C.>"
    info = installation.do(lambda js: js.stream_info(stream, subjects_filter=subject))
    return sum((info.state.subjects or {}).values())


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_nats_own_client_reads_what_is_written_and_the_other_way_round(installation: Any, size: int) -> None:
    storage, name = installation.bucket("files"), installation.names.bucket("files")
    content = os.urandom(size)
    storage.upload_bytes(content, "a/\u20ac.txt", metadata={"author": "me"})

    async def read(js: JetStreamContext) -> Any:
        return await (await js.object_store(name)).get("a/\u20ac.txt")

    async def write(js: JetStreamContext) -> None:
        await (await js.object_store(name)).put("theirs", content)

    assert installation.do(read).data == content
    installation.do(write)
    assert storage.get_file_bytes("theirs") == content
    assert storage.list_files() == ["a/\u20ac.txt", "theirs"]


def test_file_deleted_by_nats_own_client_is_gone(installation: Any) -> None:
    storage, name = installation.bucket("files"), installation.names.bucket("files")
    storage.upload_bytes(b"1", "a")

    async def delete(js: JetStreamContext) -> None:
        await (await js.object_store(name)).delete("a")

    installation.do(delete)
    assert not storage.exists("a")
    assert storage.list_files() == []
    storage.upload_bytes(b"2", "a", if_absent=True)
    assert storage.get_file_bytes("a") == b"2"


def test_ranges_are_found_also_where_chunks_do_not_lie_side_by_side(installation: Any) -> None:
    storage = installation.bucket("files")
    first, second = os.urandom(20 * CHUNK + 5), os.urandom(20 * CHUNK + 5)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(storage.upload_bytes, (first, second), ("first", "second")))

    for key, content in (("first", first), ("second", second)):
        for start, end in (
            (0, None),
            (CHUNK - 1, CHUNK + 1),
            (5 * CHUNK, 7 * CHUNK + 3),
            (-9, None),
            (20 * CHUNK, None),
        ):
            with storage.stream_file(key, start, end) as chunks:
                assert b"".join(chunks) == content[start:end]


def test_reader_of_a_replaced_file_gets_all_of_the_old_one(installation: Any) -> None:
    storage = installation.bucket("files")
    old, new = os.urandom(5 * CHUNK), os.urandom(5 * CHUNK)
    storage.upload_bytes(old, "a")
    with storage.stream_file("a") as chunks:
        begun = next(chunks)
        storage.upload_bytes(new, "a")
        storage.delete_file("a")
        assert begun + b"".join(chunks) == old


def test_content_of_replaced_and_deleted_files_is_deleted_later(installation: Any) -> None:
    storage, name = installation.bucket("files"), installation.names.bucket("files")
    for content in (b"1", b"2", b"3"):
        storage.upload_bytes(content * CHUNK, "a")
    storage.upload_bytes(b"4", "b")
    storage.delete_file("b")

    client, bucket = storage._open()
    client.run(bucket.delete_replaced(time.time() - 3600))
    assert chunks_in(installation, name) == 4 + 3  # and a note for each that is to go
    client.run(bucket.delete_replaced(time.time() + 3600))
    assert chunks_in(installation, name) == 1
    assert storage.get_file_bytes("a") == b"3" * CHUNK


def test_upload_that_fails_leaves_nothing(installation: Any) -> None:
    storage, name = installation.bucket("files"), installation.names.bucket("files")

    class Failing(io.RawIOBase):
        left = 3

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            if not self.left:
                raise OSError("the disk")
            return b"x" * size

    with pytest.raises(OSError, match="the disk"):
        storage._write("a", Failing(), storage._options("a", None, None, False, None))
    with pytest.raises(PreconditionFailed):
        storage.upload_bytes(b"x" * CHUNK * 2, "a", if_match="0")

    assert chunks_in(installation, name) == 0
    assert storage.list_files() == []


def test_of_many_writers_with_one_condition_a_single_one_wins(installation: Any) -> None:
    storage = installation.bucket("files")

    def write(number: int) -> str | None:
        try:
            return str(storage.upload_bytes(b"%d" % number, "a", if_absent=True))
        except PreconditionFailed:
            return None

    with ThreadPoolExecutor(20) as pool:
        etags = [etag for etag in pool.map(write, range(20)) if etag]

    assert etags == [storage.stat("a").etag]


def test_content_that_is_gone_or_damaged_is_reported(installation: Any) -> None:
    storage, name = installation.bucket("files"), installation.names.bucket("files")
    etag = storage.upload_bytes(os.urandom(2 * CHUNK), "a")
    storage.upload_bytes(os.urandom(2 * CHUNK), "b")
    installation.do(lambda js: js.purge_stream(f"OBJ_{name}", subject=f"$O.{name}.C.{etag}"))
    with pytest.raises(CorruptData, match="'a'"):
        storage.get_file_bytes("a")

    etag = storage.stat("b").etag
    installation.do(lambda js: js.purge_stream(f"OBJ_{name}", subject=f"$O.{name}.C.{etag}"))
    for _ in range(2):
        installation.do(lambda js: js.publish(f"$O.{name}.C.{etag}", b"x" * CHUNK))
    with pytest.raises(CorruptData, match="'b'"):
        storage.get_file_bytes("b")


def test_bucket_that_does_not_exist_is_not_found(installation: Any) -> None:
    from totoms import CloudStorage

    storage = CloudStorage("nobodys", environment=installation.environment)
    for failing in (lambda: storage.upload_bytes(b"1", "a"), lambda: storage.stat("a"), storage.list_files):
        with pytest.raises(NotFound):
            failing()
    assert storage.get_file_bytes("a") is None
    with pytest.raises(Unsupported):
        storage.signed_url("a")


def test_buckets_with_dots_and_without_are_not_the_same(installation: Any) -> None:
    installation.bucket("a.b").upload_bytes(b"1", "x")
    assert installation.bucket("a-b").list_files() == []
    assert installation.bucket("ab0").list_files() == []
