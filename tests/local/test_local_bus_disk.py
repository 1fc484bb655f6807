"""The local bus on a disk that is full or fails: nothing is acknowledged that is not kept, and it resumes by itself."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.local.bus import BLOG, DEADLINE, POSTS, open_bus, publish, receive_numbers, rows_of
from totoms.errors import TotoError, Unavailable
from totoms.local.messages import checkpoints as upkeep
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.message import TotoMessage

# In a process of its own, because the limit is the process's. `fill` and `free` make the disk full and let it be.
_SCRIPT = """
import asyncio, json, os, pathlib, resource, sys
from support.local.bus import BLOG, POSTS, make_bus, publish, receive_numbers
from totoms.errors import Unavailable
from totoms.messages.message import TotoMessage

root, how = pathlib.Path(sys.argv[1]), sys.argv[2]
filler = root.parent / "filler"

def fill():
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    else:
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        os.truncate(filler, max(0, filler.stat().st_size - 200_000))

def free():
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        filler.unlink()

async def main():
    bus = make_bus(root)
    await bus._subscribe(BLOG, create=True)
    acknowledged, refused = [], []

    async def one(number):
        try:
            await bus.publish_message(POSTS, TotoMessage(type="posted", data={"text": "x" * 3000, "number": number}))
            acknowledged.append(number)
        except Unavailable as error:
            refused.append(error.resource)

    fill()
    for number in range(0, 400, 4):
        await asyncio.gather(*map(one, range(number, number + 4)))
    full = len(refused)
    free()
    await asyncio.gather(*map(one, range(500, 510)))
    got = await receive_numbers(bus, len(acknowledged))
    await bus.close()
    print(json.dumps({"acknowledged": acknowledged, "refused": full, "resources": sorted(set(refused)), "got": got}))

asyncio.run(main())
"""


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock file, as another process that merges does."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


@pytest.fixture(params=["limit", "small disk"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder on a disk that can be filled, and how: by the system's limit on files, or a real small disk."""
    if request.param == "limit":
        yield tmp_path / "root", "limit"
        return
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a disk; the other case fills one by a limit")
    yield tmp_path / "root", "small disk"
    subprocess.run(["/bin/umount", str(tmp_path)], check=True)


def test_full_disk_acknowledges_nothing_and_publishing_resumes_by_itself(disk: tuple[Path, str]) -> None:
    root, how = disk
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(root), how],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["refused"] > 0
    assert seen["resources"] == [str(root / "bus.sqlite3")]
    assert set(range(500, 510)) <= set(seen["acknowledged"])
    assert sorted(seen["got"]) == sorted(seen["acknowledged"])


async def test_what_fails_after_a_commit_begins_fails_all_of_it_and_the_next_works(
    bus: LocalMessageBus, local_root: str
) -> None:
    pages = (await bus._do(lambda connection: connection.execute("PRAGMA page_count").fetchone()))[0]
    await bus._do(lambda connection: connection.execute(f"PRAGMA max_page_count={pages + 3}").fetchone())
    large = [TotoMessage(type="posted", data={"text": "x" * 100_000, "number": number}) for number in range(3)]
    outcomes = await asyncio.gather(*(bus.publish_message(POSTS, message) for message in large), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    assert rows_of(local_root, "SELECT * FROM deliveries") == []
    await bus._do(lambda connection: connection.execute("PRAGMA max_page_count=1000000").fetchone())
    await publish(bus, 7)
    assert await receive_numbers(bus, 1) == [7]


async def test_consumer_that_waits_gets_nothing_of_a_commit_that_failed(bus: LocalMessageBus) -> None:
    pages = (await bus._do(lambda connection: connection.execute("PRAGMA page_count").fetchone()))[0]
    await bus._do(lambda connection: connection.execute(f"PRAGMA max_page_count={pages}").fetchone())
    waiting = asyncio.ensure_future(bus._receive(BLOG, 10, DEADLINE))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await bus.publish_message(POSTS, TotoMessage(type="posted", data={"text": "x" * 100_000, "number": 1}))
    assert not waiting.done()
    await bus._do(lambda connection: connection.execute("PRAGMA max_page_count=1000000").fetchone())
    await publish(bus, 2)
    (received,) = await waiting
    assert b'"number":2' in received.body


@pytest.mark.parametrize("file", ["bus.sqlite3", "bus.state", "bus.users", "bus.gate"])
async def test_something_else_in_the_place_of_a_file_is_reported_by_name(tmp_path: Path, file: str) -> None:
    root = tmp_path / "root"
    (root / file).mkdir(parents=True)
    async with open_bus(root) as bus:
        with pytest.raises(TotoError, match=str(root)):
            await publish(bus, 1)


async def test_link_in_the_place_of_the_state_is_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.write_text("precious")
    (root / "bus.state").symlink_to(outside)
    async with open_bus(root) as bus:
        with pytest.raises(TotoError, match=str(root)):
            await publish(bus, 1)
    assert outside.read_text() == "precious"


async def test_log_that_is_not_merged_for_a_while_is_merged_later_and_stays_bounded(
    bus: LocalMessageBus, local_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "CHECKPOINT_BYTES", 500_000)
    log = Path(local_root) / "bus.sqlite3-wal"
    texts = [TotoMessage(type="posted", data={"text": "x" * 20_000, "number": number}) for number in range(20)]
    with held(Path(local_root) / "bus.merge"):
        for _ in range(5):
            await bus.publish_messages(POSTS, texts)
            await receive_numbers(bus, 20)
    grown = log.stat().st_size
    assert (Path(local_root) / "bus.sqlite3").stat().st_size < 500_000
    for _ in range(20):
        await bus.publish_messages(POSTS, texts)
        await receive_numbers(bus, 20)
    assert log.stat().st_size < grown + 2_000_000
    assert (Path(local_root) / "bus.sqlite3").stat().st_size >= 400_000
