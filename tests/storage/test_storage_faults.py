"""Planted links, damaged files, a full disk, a folder that may not be read: typed errors, nothing else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from totoms.errors import AccessDenied, BackendError, CorruptData, Unavailable
from totoms.local.storage.storage import LocalCloudStorage
from totoms.storage.storage import CloudStorage


def stored_file(bucket_folder: Path) -> Path:
    (path,) = [path for path in (bucket_folder / "objects").rglob("*") if len(path.name) == 62]
    return path


def everything(storage: CloudStorage) -> list[Callable[[], object]]:
    return [
        lambda: storage.stat("key"),
        lambda: storage.get_file_content("key"),
        lambda: storage.exists("key"),
        lambda: storage.copy_file("key", "copy"),
        lambda: storage.list_files(),
    ]


def test_a_link_planted_in_place_of_a_file_is_not_followed(
    storage: CloudStorage, bucket_folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    storage.upload_bytes(b"secret", "key")
    planted = stored_file(bucket_folder)
    planted.rename(outside)  # a file of ours, so that only the link is wrong with it
    planted.symlink_to(outside)
    for use in everything(storage):
        with pytest.raises(AccessDenied):
            use()
    with pytest.raises(AccessDenied):
        storage.upload_bytes(b"new", "key", if_absent=True)
    before = outside.read_bytes()
    storage.upload_bytes(b"new", "key")  # replaces the link, and not what it points to
    assert storage.get_file_bytes("key") == b"new"
    assert outside.read_bytes() == before


@pytest.mark.parametrize("level", ["storage", "storage/my-bucket", "storage/my-bucket/objects", "shard"])
def test_a_link_planted_in_place_of_a_folder_is_not_followed(
    storage: CloudStorage, local_root: str, bucket_folder: Path, tmp_path: Path, level: str
) -> None:
    storage.upload_bytes(b"secret", "key")
    folder = stored_file(bucket_folder).parent if level == "shard" else Path(local_root) / level
    folder.rename(tmp_path / "outside")
    folder.symlink_to(tmp_path / "outside")
    before = sorted((tmp_path / "outside").rglob("*"))
    uses = everything(storage)
    uses.append(lambda: storage.upload_bytes(b"new", "key"))
    uses.append(lambda: storage.delete_file("key"))
    for use in uses:
        with pytest.raises(AccessDenied, match="symbolic link"):
            use()
    assert sorted((tmp_path / "outside").rglob("*")) == before


@pytest.mark.parametrize("level", ["incoming", "locks"])
def test_a_link_planted_in_place_of_a_working_folder_is_not_followed(
    storage: CloudStorage, bucket_folder: Path, tmp_path: Path, level: str
) -> None:
    storage.upload_bytes(b"old", "key")
    (bucket_folder / level).rename(tmp_path / "outside")
    (bucket_folder / level).symlink_to(tmp_path / "outside")
    with pytest.raises(AccessDenied):
        storage.upload_bytes(b"new", "key")
    assert storage.get_file_bytes("key") == b"old"


def test_a_pipe_planted_in_place_of_a_file_does_not_hang(storage: CloudStorage, bucket_folder: Path) -> None:
    storage.upload_bytes(b"old", "key")
    path = stored_file(bucket_folder)
    path.unlink()
    os.mkfifo(path)
    for use in everything(storage):
        with pytest.raises(AccessDenied):
            use()


def test_the_root_itself_may_be_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("TOTOMS_LOCAL_ROOT", str(tmp_path / "link"))
    storage = CloudStorage("my-bucket")
    storage.upload_bytes(b"x", "key")
    assert storage.get_file_bytes("key") == b"x"
    assert (tmp_path / "real" / "storage").is_dir()


def test_a_root_that_is_a_file_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("TOTOMS_LOCAL_ROOT", str(root))
        storage = CloudStorage("my-bucket")
        with pytest.raises(BackendError):
            storage.upload_bytes(b"x", "key")
        with pytest.raises(AccessDenied):
            storage.stat("key")


def test_what_is_made_is_for_the_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "deep" / "root"
    monkeypatch.setenv("TOTOMS_LOCAL_ROOT", str(root))
    CloudStorage("my-bucket").upload_bytes(b"x", "key")
    for path in (root, *root.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:10],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: b"X" + content[1:],
        lambda content: content[:12] + b"\xff" + content[13:],
        lambda content: content[:20] + b"\x00" + content[21:],
        lambda content: content.replace(b'"etag"', b'"xtag"'),
        lambda content: content.replace(b'"key"', b'"kay"', 1),
        lambda content: os.urandom(len(content)),
    ],
    ids=["empty", "cut", "cut by one", "longer", "magic", "length", "JSON", "no etag", "no key", "noise"],
)
def test_a_damaged_file_is_a_typed_error_that_names_it(
    storage: CloudStorage, bucket_folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    storage.upload_bytes(b"content", "key")
    path = stored_file(bucket_folder)
    path.write_bytes(damage(path.read_bytes()))
    for use in everything(storage):
        with pytest.raises(CorruptData, match=path.name):
            use()
    storage.upload_bytes(b"new", "key")
    assert storage.get_file_bytes("key") == b"new"


def test_a_file_moved_under_the_name_of_another_is_a_typed_error(storage: CloudStorage, bucket_folder: Path) -> None:
    storage.upload_bytes(b"a", "a")
    a = stored_file(bucket_folder)
    a.rename(a.with_name("x"))
    storage.upload_bytes(b"b", "b")
    b = stored_file(bucket_folder)
    a.with_name("x").replace(b)
    with pytest.raises(CorruptData, match="another key"):
        storage.get_file_bytes("b")


def test_a_full_disk_is_a_typed_error_and_leaves_what_was_there(
    storage: CloudStorage, bucket_folder: Path, start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    # The size limit of a process stands for the disk's: write(2) fails in the middle of the file in both cases.
    storage.upload_bytes(b"old", "key")
    process = start_python(
        """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
try:
    storage.upload_bytes(bytes(2_000_000), "key")
except Unavailable as error:
    print("typed", type(error.__cause__).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(storage.get_file_content("key"))
storage.upload_bytes(b"new", "key")
print(storage.get_file_content("key"))
"""
    )
    assert process.communicate(timeout=120)[0].split() == ["typed", "OSError", "old", "new"]
    assert os.listdir(bucket_folder / "incoming") == []


def test_a_folder_that_may_not_be_used_is_access_denied(
    storage: CloudStorage, local_root: str, start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    # In a process of an ordinary user: the superuser may do everything.
    storage.upload_bytes(b"old", "key")
    os.chmod(local_root, 0o000)
    process = start_python(
        """
if os.geteuid() == 0:
    os.setuid(65534)
for use in (
    lambda: storage.stat("key"),
    lambda: storage.get_file_content("key"),
    lambda: storage.list_files(),
    lambda: storage.upload_bytes(b"", "key"),
    lambda: storage.delete_file("key"),
):
    try:
        use()
    except AccessDenied:
        print("denied")
"""
    )
    try:
        assert process.communicate(timeout=120)[0].split() == ["denied"] * 5
    finally:
        os.chmod(local_root, 0o700)


def test_a_lock_held_for_too_long_is_a_typed_error(
    storage: CloudStorage, bucket_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from totoms.local import folders, locks

    storage.upload_bytes(b"old", "key")
    monkeypatch.setattr(locks, "_LOCK_TIMEOUT", 0.0)
    with (
        folders.open_folder(bucket_folder, "locks") as folder,
        locks.locked(folder, stored_file(bucket_folder).parent.name),
        pytest.raises(Unavailable),
    ):
        storage.upload_bytes(b"new", "key")
    assert storage.get_file_bytes("key") == b"old"
    storage.upload_bytes(b"new", "key")


def test_no_descriptor_is_left_open(storage: CloudStorage, bucket_folder: Path) -> None:
    storage.upload_bytes(b"content", "key")
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        storage.upload_bytes(b"content", "key")
        storage.copy_file("key", "copy")
        storage.get_file_bytes("key")
        storage.list_files()
        storage.delete_file("copy")
        storage.exists("copy")
        next(storage.iter_files())
    path = stored_file(bucket_folder)
    path.write_bytes(b"damaged")
    for use in everything(storage):
        with pytest.raises(CorruptData):
            use()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_the_key_is_never_a_path(storage: CloudStorage, bucket_folder: Path) -> None:
    storage.upload_bytes(b"x", "/etc/passwd")
    assert isinstance(storage, LocalCloudStorage)
    names = {name for _, folders, files in os.walk(bucket_folder) for name in folders + files}
    assert not any("passwd" in name or "etc" in name for name in names)
