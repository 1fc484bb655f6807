"""Files on the local backend: what was written is read, and a missing file is reported."""

from __future__ import annotations

import os
import stat
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from totoms.environment import TotoEnvironment
from totoms.errors import (
    CorruptData,
    InvalidArgument,
    InvalidKey,
    NotFound,
    PreconditionFailed,
    Unsupported,
)
from totoms.local.storage.storage import LocalCloudStorage
from totoms.logging.logger import TotoLogger
from totoms.storage.storage import SIGNED_URLS, CloudStorage

MIB = 1024 * 1024


def test_the_constructor_gives_the_implementation_of_the_environment() -> None:
    assert type(CloudStorage("my-bucket")) is LocalCloudStorage
    assert type(CloudStorage("my-bucket", environment=TotoEnvironment("local"))) is LocalCloudStorage


def test_the_constructor_takes_a_logger_and_a_cid_by_position() -> None:
    logger = TotoLogger("my-service")
    storage = CloudStorage("my-bucket", logger, "a-cid")
    assert (storage.bucket_name, storage.logger, storage.cid) == ("my-bucket", logger, "a-cid")


def test_a_subclass_of_an_implementation_is_constructed_as_itself() -> None:
    class Mine(LocalCloudStorage):
        pass

    assert type(Mine("my-bucket")) is Mine


def test_constructing_does_no_io(local_root: str) -> None:
    os.rmdir(local_root)
    CloudStorage("my-bucket")
    assert not Path(local_root).exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"x", "Grüße, 世界 🌍\r\n".encode(), bytes(range(256)), os.urandom(10 * MIB)],
    ids=["empty", "one byte", "text", "every byte", "10 MiB"],
)
def test_content_comes_back_unchanged(storage: CloudStorage, tmp_path: Path, content: bytes) -> None:
    local = tmp_path / "local"
    local.write_bytes(content)
    storage.upload_file(str(local), "from/file")
    storage.upload_bytes(content, "from/bytes")
    storage.upload_stream((content[at : at + 70_000] for at in range(0, len(content), 70_000)), "from/stream")
    for key in ("from/file", "from/bytes", "from/stream"):
        assert storage.get_file_bytes(key) == content
        assert b"".join(storage.stream_file(key)) == content
        assert storage.stat(key).size == len(content)
        storage.download_file(key, tmp_path / "down")
        assert (tmp_path / "down").read_bytes() == content


def test_what_the_readme_shows(storage: CloudStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hello.txt").write_text("Hello, Toto!")
    storage.upload_file("./hello.txt", "my-folder/hello.txt")
    storage.download_file("my-folder/hello.txt", "./downloaded_hello.txt")
    assert Path("downloaded_hello.txt").read_text() == "Hello, Toto!"
    assert storage.list_files("my-folder/") == ["my-folder/hello.txt"]
    assert storage.get_file_content("my-folder/hello.txt") == "Hello, Toto!"
    storage.delete_file("my-folder/hello.txt")
    assert storage.list_files("my-folder/") == []


def test_two_buckets_do_not_mix(storage: CloudStorage) -> None:
    storage.upload_bytes(b"1", "key")
    assert CloudStorage("other-bucket").list_files() == []
    assert CloudStorage("other-bucket").get_file_bytes("key") is None


# --- ranges ---


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 10),
        (3, 7),
        (5, None),
        (None, 4),
        (-4, None),
        (-6, -2),
        (None, -3),
        (4, 4),
        (7, 3),
        (10, None),
        (10, 20),
        (99, None),
        (3, 99),
        (-99, 3),
        (None, None),
    ],
)
def test_a_range_is_what_a_slice_gives(storage: CloudStorage, start: int | None, end: int | None) -> None:
    storage.upload_bytes(b"0123456789", "digits")
    assert b"".join(storage.stream_file("digits", start, end)) == b"0123456789"[start:end]


def test_a_backend_is_never_asked_for_an_empty_range() -> None:
    asked: list[tuple[int, int | None]] = []

    class Recording(LocalCloudStorage):
        def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
            asked.append((start, length))
            return super()._read(key, start, length)

    storage = Recording("my-bucket")
    storage.upload_bytes(b"0123456789", "digits")
    for start, end in ((4, 4), (7, 3), (0, 0), (-2, -4), (-99, -98)):
        assert list(storage.stream_file("digits", start, end)) == []
    assert asked == []
    storage.stream_file("digits", 3, 5).close()
    storage.stream_file("digits", -3).close()
    assert asked == [(3, 2), (7, 3)]


def test_a_range_of_an_empty_file_is_empty(storage: CloudStorage) -> None:
    storage.upload_bytes(b"", "empty")
    assert b"".join(storage.stream_file("empty", 0, 10)) == b""
    assert b"".join(storage.stream_file("empty", -1)) == b""


def test_a_range_across_chunks(storage: CloudStorage) -> None:
    content = os.urandom(MIB)
    storage.upload_bytes(content, "big")
    assert b"".join(storage.stream_file("big", 250_000, 800_001)) == content[250_000:800_001]


@pytest.mark.parametrize("bound", ["1", 1.0, True])
def test_a_range_must_be_whole_numbers(storage: CloudStorage, bound: object) -> None:
    storage.upload_bytes(b"0123456789", "digits")
    with pytest.raises(InvalidArgument):
        storage.stream_file("digits", bound)  # type: ignore[arg-type]


# --- streams ---


def test_memory_stays_far_below_the_file(storage: CloudStorage, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(MIB)

    tracemalloc.start()
    try:
        storage.upload_stream(chunks(), "big")
        assert sum(map(len, storage.stream_file("big"))) == 64 * MIB
        storage.download_file("big", tmp_path / "big")
        storage.upload_file(tmp_path / "big", "again")
        storage.copy_file("big", "copied")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB


def test_a_stream_left_in_the_middle_releases_the_file(storage: CloudStorage) -> None:
    storage.upload_bytes(bytes(2 * MIB), "big")

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    with storage.stream_file("big") as stream:
        next(stream)
    assert list(stream) == []
    stream = storage.stream_file("big")
    stream.close()
    stream.close()
    for _ in range(10):
        next(storage.stream_file("big"))
    assert descriptors() == before


def test_a_stream_goes_on_with_the_version_it_began(storage: CloudStorage) -> None:
    old, new = b"o" * MIB, b"n" * (2 * MIB)
    storage.upload_bytes(old, "key")
    stream = storage.stream_file("key")
    first = next(stream)
    storage.upload_bytes(new, "key")
    storage.delete_file("key")
    assert first + b"".join(stream) == old


def test_chunks_that_raise_leave_what_was_there(storage: CloudStorage, bucket_folder: Path) -> None:
    storage.upload_bytes(b"old", "key")

    def chunks() -> Iterator[bytes]:
        yield bytes(MIB)
        raise OSError(28, "the caller's own")

    with pytest.raises(OSError, match="the caller's own"):
        storage.upload_stream(chunks(), "key")
    assert storage.get_file_bytes("key") == b"old"
    assert os.listdir(bucket_folder / "incoming") == []


def test_chunks_must_be_bytes(storage: CloudStorage) -> None:
    with pytest.raises(InvalidArgument):
        storage.upload_stream(["text"], "key")  # type: ignore[list-item]
    with pytest.raises(InvalidArgument):
        storage.upload_bytes("text", "key")  # type: ignore[arg-type]
    assert not storage.exists("key")


def test_empty_chunks_do_not_end_a_stream(storage: CloudStorage) -> None:
    storage.upload_stream([b"", b"a", b"", b"b", b""], "key")
    assert storage.get_file_bytes("key") == b"ab"


# --- media type and metadata ---


@pytest.mark.parametrize(
    ("key", "content_type"),
    [
        ("a.txt", "text/plain"),
        ("x/a.JSON", "application/json"),
        ("a.html", "text/html"),
        ("a.png", "image/png"),
        ("a.tar.gz", "application/gzip"),
        ("a.b/c", "application/octet-stream"),
        ("none", "application/octet-stream"),
        ("data:text/html,x", "application/octet-stream"),
        ("http://x/y.txt?a.png", "image/png"),
    ],
)
def test_media_type_follows_the_ending_of_the_key(storage: CloudStorage, key: str, content_type: str) -> None:
    storage.upload_bytes(b"", key)
    assert storage.stat(key).content_type == content_type


def test_media_type_given_wins(storage: CloudStorage) -> None:
    storage.upload_bytes(b"", "a.txt", content_type="text/markdown; charset=utf-8")
    assert storage.stat("a.txt").content_type == "text/markdown; charset=utf-8"


@pytest.mark.parametrize(
    "bad", ["", "text", "text/", "/plain", "text/plain\r\nX-Evil: 1", "text/pläin", "a/" + "b" * 300]
)
def test_what_is_not_a_media_type_is_refused(storage: CloudStorage, bad: str) -> None:
    with pytest.raises(InvalidKey):
        storage.upload_bytes(b"", "a.txt", content_type=bad)


def test_metadata_comes_back_unchanged(storage: CloudStorage) -> None:
    metadata = {"owner": "me", "a_1": "with spaces and ~!@#$%^&*()_+\"'\\", "_x": "v" * 1000}
    storage.upload_bytes(b"", "key", metadata=metadata)
    assert storage.stat("key").metadata == metadata


@pytest.mark.parametrize(
    "bad",
    [
        {"": "v"},
        {"Upper": "v"},
        {"with-hyphen": "v"},
        {"1st": "v"},
        {"ä": "v"},
        {"a b": "v"},
        {"\ud800": "v"},
        {"a\nb": "v"},
        {"k" * 129: "v"},
        {"k": ""},
        {"k": " lead"},
        {"k": "trail "},
        {"k": "a\nb"},
        {"k": "ä"},
        {"k": "\ud800"},
        {"k": "v" * 2048},
        {"k": 1},
        {1: "v"},
        {"k": b"v"},
    ],
)
def test_metadata_that_a_cloud_would_change_is_refused(storage: CloudStorage, bad: dict[str, str]) -> None:
    with pytest.raises(InvalidKey):
        storage.upload_bytes(b"", "key", metadata=bad)
    assert not storage.exists("key")


def test_stat_has_size_time_and_an_etag_that_changes(storage: CloudStorage) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    etag = storage.upload_bytes(b"same", "a.txt")
    info = storage.stat("a.txt")
    assert (info.key, info.size, info.etag) == ("a.txt", 4, etag)
    assert before < info.updated < datetime.now(UTC) + timedelta(seconds=2)
    assert storage.upload_bytes(b"same", "a.txt") != etag


# --- lists ---


def test_list_is_complete_ordered_and_by_prefix(storage: CloudStorage) -> None:
    keys = [f"k/{number}" for number in range(1001)] + ["K/upper", "k", "l", "é/x", "世界", "🌍"]
    for key in keys:
        storage.upload_bytes(b"", key)
    assert storage.list_files() == sorted(keys, key=str.encode)
    assert storage.list_files("k/") == sorted(key for key in keys if key.startswith("k/"))
    assert storage.list_files("k/99") == ["k/99", *(f"k/99{digit}" for digit in range(10))]
    assert storage.list_files("nothing") == []


def test_list_gives_ten_thousand_and_one_keys(storage: CloudStorage, bucket_folder: Path) -> None:
    # The keys are written by the storage's own parts, without making each one durable: 10,001 fsyncs take long.
    import io

    from totoms.local.storage import objects
    from totoms.local.storage.storage import _place
    from totoms.storage.storage import FileInfo

    storage.upload_bytes(b"", "n/00000")
    keys = [f"n/{number:05}" for number in range(10_001)]
    fsync, os.fsync = os.fsync, lambda _: None  # type: ignore[assignment]
    try:
        for key in keys[1:]:
            shard, name = _place(key)
            (bucket_folder / "objects" / shard).mkdir(exist_ok=True)
            file = os.open(bucket_folder / "objects" / shard / name, os.O_RDWR | os.O_CREAT)
            info = FileInfo(key, 0, "text/plain", "e", datetime.now(UTC))
            objects.write_object(file, info, io.BytesIO(b""))
            os.close(file)
    finally:
        os.fsync = fsync
    assert storage.list_files("n/") == keys
    assert next(iter(storage.iter_files("n/"))) == keys[0]


def test_a_list_does_nothing_before_the_first_key_is_asked_for(storage: CloudStorage) -> None:
    keys = storage.iter_files()
    storage.upload_bytes(b"", "later")
    assert list(keys) == ["later"]


def test_list_with_a_delimiter_gives_folders_once(storage: CloudStorage) -> None:
    for key in ("a", "a/", "a/b", "a/b/c", "a/b/d", "a//x", "b/c", "c"):
        storage.upload_bytes(b"", key)
    assert storage.list_files(delimiter="/") == ["a", "a/", "b/", "c"]
    assert storage.list_files("a/", delimiter="/") == ["a/", "a//", "a/b", "a/b/"]
    assert storage.list_files("a/b", delimiter="/") == ["a/b", "a/b/"]
    assert storage.list_files("a/b/", delimiter="/") == ["a/b/c", "a/b/d"]


def test_files_that_a_desktop_leaves_in_the_folder_are_no_objects(storage: CloudStorage, bucket_folder: Path) -> None:
    storage.upload_bytes(b"", "key")
    (bucket_folder / "objects" / ".DS_Store").write_bytes(b"x")
    shard = next(path for path in (bucket_folder / "objects").iterdir() if path.is_dir())
    (shard / "Thumbs.db").write_bytes(b"x")
    assert storage.list_files() == ["key"]


# --- what is missing ---


@pytest.mark.parametrize("bucket_exists", [True, False])
def test_a_missing_file_is_the_same_typed_error_everywhere(
    storage: CloudStorage, tmp_path: Path, bucket_exists: bool
) -> None:
    if bucket_exists:
        storage.upload_bytes(b"", "other")
    for use in (
        lambda: storage.stat("no/such"),
        lambda: storage.stream_file("no/such"),
        lambda: storage.stream_file("no/such", 0, 0),
        lambda: storage.stream_file("no/such", -5),
        lambda: storage.download_file("no/such", tmp_path / "new" / "file"),
        lambda: storage.copy_file("no/such", "x"),
        lambda: storage.copy_file("no/such", "no/such"),
        lambda: storage.move_file("no/such", "x"),
        lambda: storage.move_file("no/such", "no/such"),
    ):
        with pytest.raises(NotFound, match=r"'no/such'.*'my-bucket'") as caught:
            use()
        assert caught.value.resource == "no/such"
    assert not (tmp_path / "new").exists()
    assert storage.get_file_content("no/such") is None
    assert storage.get_file_bytes("no/such") is None
    assert not storage.exists("no/such")
    assert storage.list_files("no/such") == []
    storage.delete_file("no/such")


def test_reading_makes_no_bucket(storage: CloudStorage, local_root: str) -> None:
    storage.exists("key")
    storage.list_files()
    storage.delete_file("key")
    assert os.listdir(local_root) == []


def test_delete_then_delete_again_then_read(storage: CloudStorage) -> None:
    storage.upload_bytes(b"", "key")
    storage.delete_file("key")
    storage.delete_file("key")
    assert not storage.exists("key")
    assert storage.list_files() == []


def test_content_that_is_not_text_is_a_typed_error_with_a_way_out(storage: CloudStorage) -> None:
    storage.upload_bytes(b"\xff\xfe secret", "blob")
    with pytest.raises(CorruptData, match="get_file_bytes") as caught:
        storage.get_file_content("blob")
    assert caught.value.__cause__ is caught.value.__context__ is None  # it would carry the content along


# --- local files ---


def test_uploading_a_missing_local_file_is_the_plain_error(storage: CloudStorage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.upload_file(tmp_path / "none", "key")
    with pytest.raises(IsADirectoryError):
        storage.upload_file(tmp_path, "key")
    assert not storage.exists("key")


def test_downloading_makes_the_folder_and_usual_permissions(storage: CloudStorage, tmp_path: Path) -> None:
    storage.upload_bytes(b"x", "key")
    target = tmp_path / "a" / "b" / "file"
    storage.download_file("key", target)
    (tmp_path / "usual").write_bytes(b"")
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


def test_a_failed_download_leaves_what_was_there_and_no_part(storage: CloudStorage, tmp_path: Path) -> None:
    class Breaking(LocalCloudStorage):
        def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
            yield b"half"
            raise ConnectionResetError("gone")

    storage.upload_bytes(b"x", "key")
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(ConnectionResetError):
        Breaking("my-bucket").download_file("key", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        storage.download_file("key", tmp_path / "folder")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_downloading_replaces_a_link_and_not_what_it_points_to(storage: CloudStorage, tmp_path: Path) -> None:
    storage.upload_bytes(b"new", "key")
    (tmp_path / "precious").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    storage.download_file("key", tmp_path / "link")
    assert (tmp_path / "precious").read_bytes() == b"old"
    assert (tmp_path / "link").read_bytes() == b"new"


# --- copies and preconditions ---


def test_copy_and_move_keep_content_type_and_metadata(storage: CloudStorage) -> None:
    storage.upload_bytes(b"content", "a.bin", content_type="image/png", metadata={"owner": "me"})
    assert storage.copy_file("a.bin", "b") == storage.stat("b").etag
    assert storage.move_file("a.bin", "c") == storage.stat("c").etag
    for key in ("b", "c"):
        info = storage.stat(key)
        assert (storage.get_file_bytes(key), info.content_type, info.metadata) == (
            b"content",
            "image/png",
            {"owner": "me"},
        )
    assert storage.list_files() == ["b", "c"]


def test_moving_a_file_onto_itself_keeps_it(storage: CloudStorage) -> None:
    storage.upload_bytes(b"content", "a")
    storage.move_file("a", "a")
    storage.copy_file("a", "a")
    assert storage.get_file_bytes("a") == b"content"


def test_if_absent_writes_once(storage: CloudStorage, bucket_folder: Path) -> None:
    storage.upload_bytes(b"1", "key", if_absent=True)
    with pytest.raises(PreconditionFailed, match="'key'"):
        storage.upload_bytes(b"2", "key", if_absent=True)
    assert storage.get_file_bytes("key") == b"1"
    assert os.listdir(bucket_folder / "incoming") == []
    storage.delete_file("key")
    storage.upload_bytes(b"3", "key", if_absent=True)


def test_if_match_writes_over_the_version_that_was_read_only(storage: CloudStorage, tmp_path: Path) -> None:
    first = storage.upload_bytes(b"1", "key")
    second = storage.upload_bytes(b"2", "key", if_match=first)
    for etag in (first, "no-such", ""):
        with pytest.raises(PreconditionFailed):
            storage.upload_stream([b"3"], "key", if_match=etag)
    assert storage.get_file_bytes("key") == b"2"
    (tmp_path / "file").write_bytes(b"4")
    storage.upload_file(tmp_path / "file", "key", if_match=second)
    with pytest.raises(PreconditionFailed):
        storage.upload_bytes(b"5", "missing", if_match=second)
    assert not storage.exists("missing")


def test_both_preconditions_at_once_are_refused(storage: CloudStorage) -> None:
    with pytest.raises(InvalidArgument):
        storage.upload_bytes(b"", "key", if_absent=True, if_match="x")


# --- signed URLs ---


def test_signed_urls_that_a_backend_does_not_have_are_unsupported() -> None:
    class Unsigning(LocalCloudStorage):
        capabilities = frozenset()

    with pytest.raises(Unsupported, match=r"local.*signed_urls"):
        Unsigning("my-bucket").signed_url("key")


def test_signed_url_arguments_are_checked_for_every_backend() -> None:
    class Signing(LocalCloudStorage):
        capabilities = frozenset({SIGNED_URLS})

        def _signed_url(self, key: str, method: object, expires_in: int, content_type: str) -> str:
            return f"{method} {key} {expires_in} {content_type}"

    signing = Signing("my-bucket")
    assert signing.signed_url("a.txt", "PUT", 60) == "PUT a.txt 60 text/plain"
    for method, seconds in (("DELETE", 60), ("GET", 0), ("GET", -1), ("GET", 7 * 24 * 3600 + 1), ("GET", True)):
        with pytest.raises(InvalidArgument):
            signing.signed_url("a.txt", method, seconds)  # type: ignore[arg-type]
    with pytest.raises(InvalidKey):
        signing.signed_url("..")
