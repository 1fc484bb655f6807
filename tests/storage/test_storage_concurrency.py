"""Many writers and readers, threads and processes: never torn, and of many racers one wins."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from totoms.errors import NotFound, PreconditionFailed
from totoms.storage.storage import CloudStorage

PROCESSES = 4
THREADS = 5

# Each racer waits until all are there, so that they meet.
RACE = """
from concurrent.futures import ThreadPoolExecutor
import threading
me, how, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
precondition = {"if_absent": True} if how == "absent" else {"if_match": how}
meet = threading.Barrier(threads)
def race(number):
    meet.wait(120)
    try:
        storage.upload_bytes(f"{me}.{number}".encode(), "raced", **precondition)
        return f"{me}.{number}"
    except PreconditionFailed:
        return ""
print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(threads) as pool:
    print(*[won for won in pool.map(race, range(threads)) if won], flush=True)
"""


def race(start_python: Callable[..., subprocess.Popen[str]], how: str) -> list[str]:
    racers = [start_python(RACE, str(number), how, str(THREADS)) for number in range(PROCESSES)]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"  # type: ignore[union-attr]
    for racer in racers:
        racer.stdin.write("go\n")  # type: ignore[union-attr]
        racer.stdin.flush()  # type: ignore[union-attr]
    return [winner for racer in racers for winner in racer.communicate(timeout=60)[0].split()]


def test_of_twenty_creators_in_threads_and_processes_exactly_one_wins(
    storage: CloudStorage, start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    (winner,) = race(start_python, "absent")
    assert storage.get_file_content("raced") == winner


def test_of_twenty_replacers_in_threads_and_processes_exactly_one_wins(
    storage: CloudStorage, start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    etag = storage.upload_bytes(b"old", "raced")
    (winner,) = race(start_python, etag)
    assert storage.get_file_content("raced") == winner


def test_a_counter_kept_by_if_match_loses_no_increment(storage: CloudStorage) -> None:
    storage.upload_bytes(b"0", "counter")

    def increment(_: int) -> None:
        for _ in range(10):
            while True:
                etag = storage.stat("counter").etag
                value = int(storage.get_file_content("counter") or "")
                try:
                    storage.upload_bytes(str(value + 1).encode(), "counter", if_match=etag)
                    break
                except PreconditionFailed:
                    continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(increment, range(8)))
    assert storage.get_file_content("counter") == "80"


def test_twenty_writers_and_readers_see_whole_versions_only(storage: CloudStorage) -> None:
    def version(number: int) -> tuple[bytes, dict[str, str]]:
        return (f"{number:03}".encode() * (1000 + number * 5000)), {"number": str(number)}

    storage.upload_bytes(version(0)[0], "key", metadata=version(0)[1])
    done = threading.Event()
    wrong: list[str] = []

    def read() -> int:
        reads = 0
        while not done.is_set() or reads == 0:
            content = storage.get_file_bytes("key")
            info = storage.stat("key")
            assert content is not None
            if content != version(int(content[:3]))[0]:
                wrong.append("torn content")
            if info.size != len(version(int(info.metadata["number"]))[0]):
                wrong.append("size and metadata of two versions")
            reads += 1
        return reads

    def write(writer: int) -> None:
        for turn in range(15):
            content, metadata = version(writer * 15 + turn)
            storage.upload_bytes(content, "key", metadata=metadata)

    with ThreadPoolExecutor(20) as pool:
        readers = [pool.submit(read) for _ in range(10)]
        try:
            list(pool.map(write, range(10)))
        finally:
            done.set()
        assert all(reader.result() > 0 for reader in readers)
    assert wrong == []


def test_writers_deleters_and_listers_do_not_disturb_each_other(storage: CloudStorage) -> None:
    done = threading.Event()

    def list_and_stat() -> None:
        while not done.is_set():
            for key in storage.iter_files("k/"):
                try:
                    assert storage.stat(key).key == key
                except NotFound:
                    continue

    def write_and_delete(number: int) -> None:
        for _ in range(20):
            storage.upload_bytes(b"x", f"k/{number}")
            storage.delete_file(f"k/{number}")
        storage.upload_bytes(b"x", f"k/{number}")

    with ThreadPoolExecutor(12) as pool:
        readers = [pool.submit(list_and_stat) for _ in range(4)]
        try:
            list(pool.map(write_and_delete, range(8)))
        finally:
            done.set()
        for reader in readers:
            reader.result()
    assert storage.list_files() == [f"k/{number}" for number in range(8)]


# --- a writer that is killed ---

OVERWRITE = """
number = 0
storage.upload_bytes(b"0000" * 300_000, "key", metadata={"fill": "0000"})
print("ready", flush=True)
while True:
    number += 1
    fill = f"{number % 10000:04}"
    def chunks():
        for _ in range(30):
            yield fill.encode() * 10_000
    storage.upload_stream(chunks(), "key", metadata={"fill": fill})
"""


def kill_in_mid_overwrite(
    storage: CloudStorage, start: Callable[..., subprocess.Popen[str]], incoming: Path
) -> tuple[bool, int]:
    """Kill a writer while its new file is half written. Tell whether what is read is whole, and what was left."""
    writer = start(OVERWRITE)
    assert writer.stdout.readline() == "ready\n"  # type: ignore[union-attr]
    while not any(_size(path) > 100_000 for path in incoming.iterdir()):
        assert writer.poll() is None
    writer.kill()
    writer.wait(120)
    content, info = storage.get_file_bytes("key"), storage.stat("key")
    assert content is not None
    whole = content == info.metadata["fill"].encode() * 300_000
    return whole, len(list(incoming.iterdir()))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_a_writer_killed_in_mid_overwrite_leaves_a_whole_file_and_its_leftovers_are_swept(
    storage: CloudStorage, bucket_folder: Path, start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    incoming = bucket_folder / "incoming"
    (bucket_folder / "incoming").mkdir(parents=True)
    for _ in range(3):
        whole, left = kill_in_mid_overwrite(storage, start_python, incoming)
        assert whole
        assert left <= 1  # the one before was swept by the next process's first write
    storage.upload_bytes(b"new", "key")  # the first write of this process
    assert os.listdir(incoming) == []
    assert storage.get_file_bytes("key") == b"new"


def test_a_sweep_spares_what_a_living_process_is_writing(
    storage: CloudStorage, bucket_folder: Path, start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    writer = start_python(
        """
def chunks():
    yield b"first"
    print("half", flush=True)
    sys.stdin.readline()
    yield b"second"
storage.upload_stream(chunks(), "slow")
print("written", flush=True)
"""
    )
    assert writer.stdout.readline() == "half\n"  # type: ignore[union-attr]
    (bucket_folder / "incoming" / "left-by-the-dead").write_bytes(b"x")
    storage.upload_bytes(b"x", "other")
    assert len(os.listdir(bucket_folder / "incoming")) == 1
    assert not storage.exists("slow")
    output, _ = writer.communicate("\n", timeout=120)
    assert output == "written\n"
    assert storage.get_file_bytes("slow") == b"firstsecond"


@pytest.mark.faults
def test_sigkill_in_mid_overwrite_a_hundred_times(
    storage: CloudStorage,
    bucket_folder: Path,
    start_python: Callable[..., subprocess.Popen[str]],
    figure: Callable[[str, str], None],
) -> None:
    incoming = bucket_folder / "incoming"
    incoming.mkdir(parents=True)
    torn = most_left = 0
    for _ in range(100):
        whole, left = kill_in_mid_overwrite(storage, start_python, incoming)
        torn += not whole
        most_left = max(most_left, left)
    storage.upload_bytes(b"new", "key")
    after = len(os.listdir(incoming))
    figure(
        "SIGKILL in mid overwrite, 100 times",
        f"{torn} torn reads, at most {most_left} left over, {after} after a sweep",
    )
    assert (torn, after) == (0, 0)
    assert most_left <= 1
