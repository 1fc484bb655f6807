"""Keys are opaque: each one is its own file, or is refused before anything is touched."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from totoms.errors import InvalidKey
from totoms.names import check_bucket_name, check_key
from totoms.storage.storage import CloudStorage
from totoms.testing.storage import keys
from totoms.testing.storage.keys import OPAQUE

REFUSED = [
    *keys.REFUSED,
    *(key for key in keys.IMPOSSIBLE.values() if isinstance(key, str)),
    "a\udfffb",
    "x" * 10_000_000,
]


def test_each_weird_key_round_trips_as_its_own(storage: CloudStorage, local_root: str) -> None:
    for number, key in enumerate(OPAQUE):
        storage.upload_bytes(str(number).encode(), key)
    for number, key in enumerate(OPAQUE):
        assert storage.get_file_bytes(key) == str(number).encode(), key
        assert storage.stat(key).key == key
    assert storage.list_files() == sorted(OPAQUE)
    assert len(set(OPAQUE)) == len(OPAQUE)
    assert sorted(os.listdir(Path(local_root) / "storage")) == ["my-bucket"]


@pytest.mark.parametrize("key", REFUSED, ids=lambda key: ascii(key)[:30])
def test_a_key_that_a_cloud_cannot_hold_is_refused_before_any_io(
    storage: CloudStorage, local_root: str, tmp_path: Path, key: str
) -> None:
    missing = tmp_path / "missing"  # were it opened first, the error would be another
    for use in (
        lambda: storage.upload_file(missing, key),
        lambda: storage.upload_bytes(b"", key),
        lambda: storage.upload_stream(iter(()), key),
        lambda: storage.download_file(key, tmp_path / "down"),
        lambda: storage.stream_file(key),
        lambda: storage.get_file_content(key),
        lambda: storage.get_file_bytes(key),
        lambda: storage.stat(key),
        lambda: storage.exists(key),
        lambda: storage.delete_file(key),
        lambda: storage.copy_file(key, "x"),
        lambda: storage.copy_file("x", key),
        lambda: storage.move_file(key, "x"),
        lambda: storage.signed_url(key),
    ):
        with pytest.raises(InvalidKey) as caught:
            use()
        assert str(caught.value).isascii()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300
    assert os.listdir(local_root) == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("key", [None, 1, b"bytes", Path("x"), ["a"]])
def test_a_key_that_is_not_a_string_is_refused(storage: CloudStorage, key: object) -> None:
    with pytest.raises(InvalidKey):
        storage.stat(key)  # type: ignore[arg-type]


@given(st.text(min_size=1, max_size=40) | st.text(alphabet="./\\aA%\u00e9 ", min_size=1, max_size=12))
@example("a" * 1024)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_file_of_its_own_or_refused(storage: CloudStorage, key: str) -> None:
    try:
        check_key(key)
    except InvalidKey:
        with pytest.raises(InvalidKey):
            storage.upload_bytes(b"", key)
        return
    storage.upload_bytes(key.encode(), key)
    assert storage.get_file_content(key) == key
    assert key in storage.list_files(key[: len(key) // 2])
    storage.delete_file(key)
    assert not storage.exists(key)


@given(st.text(max_size=2000) | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")))
@settings(max_examples=300, deadline=None)
def test_checking_a_key_gives_the_key_or_a_typed_error(key: str) -> None:
    with contextlib.suppress(InvalidKey):
        assert check_key(key) == key


@pytest.mark.parametrize("prefix", ["\x00", "a\nb", "\ud800", "a\\", "p" * 1025, None])
def test_a_prefix_that_no_key_can_start_with_is_refused(storage: CloudStorage, prefix: str) -> None:
    with pytest.raises(InvalidKey):
        storage.list_files(prefix)
    with pytest.raises(InvalidKey):
        storage.iter_files(prefix)


def test_a_prefix_may_end_where_a_key_may_not(storage: CloudStorage) -> None:
    storage.upload_bytes(b"", "a.txt")
    assert storage.list_files("a.") == ["a.txt"]


@pytest.mark.parametrize("name", ["abc", "my-bucket", "my_bucket", "1.2.a", "x" * 222, "0-0"])
def test_bucket_names_that_some_cloud_has(name: str) -> None:
    assert check_bucket_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "ab",
        "..",
        "../x",
        "a/../b",
        "a/b",
        "/etc",
        "a\\b",
        "a..b",
        ".abc",
        "abc.",
        "-abc",
        "Upper",
        "a b",
        "abc\n",
        "abc\x00",
        "é" * 3,
        "x" * 223,
        None,
        1,
        b"abc",
    ],
)
def test_bucket_names_that_no_cloud_has_are_refused(local_root: str, name: str) -> None:
    with pytest.raises(InvalidKey):
        CloudStorage(name)
    assert os.listdir(local_root) == []
