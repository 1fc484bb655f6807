"""The wall clock jumps, forwards and backwards, while messages are leased, in backoff and waiting.

docs/local.md says what may happen; no message is lost.
"""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.faults.oracle import assert_duplicates_are_flagged, dead_letters, numbers, until, until_handled
from support.processes import Process

pytestmark = pytest.mark.faults

HOUR = 3600.0
LEASE = 2.0
SLACK = 3.0
"""Seconds for a loaded machine."""


class WrongClock:
    """The wall clock of processes, set wrong by the test."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.env = {"WRONG_CLOCK": str(path), "PYTHONPATH": str(Path(__file__).parents[1] / "support/wrong_clock")}
        path.write_bytes(struct.pack("d", 0.0))

    def set(self, offset: float) -> None:
        with self._path.open("r+b") as file:  # in place: the processes have it mapped
            file.write(struct.pack("d", offset))


@pytest.fixture
def clock(tmp_path: Path) -> WrongClock:
    return WrongClock(tmp_path / "clock")


@pytest.fixture
def begin(launch: Callable[..., Process], clock: WrongClock) -> Callable[..., Process]:
    return lambda script, *arguments: launch(script, *arguments, **clock.env)


def consumer(begin: Any, handled: Path, handler_seconds: float = 0.0, lease: float = LEASE) -> Process:
    made: Process = begin("faults/consumer.py", handled, lease, handler_seconds, 16)
    made.port()
    return made


def publish(begin: Any, file: Path, first: int, last: int) -> set[int]:
    begin("faults/publisher.py", file, first, last).expect("published all")
    return set(range(first, last))


def test_clock_that_jumps_about_loses_nothing(
    begin: Any, clock: WrongClock, local_root: str, tmp_path: Path, figure: Any
) -> None:
    total, jumps = 3_000, 40
    published, handled = tmp_path / "published", tmp_path / "handled"
    dice = random.Random(7)
    consumers = [consumer(begin, handled, 0.01) for _ in range(2)]
    publisher = begin("faults/publisher.py", published, 0, total, 16, 0, 300)
    latest = 0.0
    for jump in range(jumps):
        offset = dice.choice([0.0, 1.0, -1.0, 30.0, -30.0, HOUR, -HOUR, 24 * HOUR, -24 * HOUR])
        latest = max(latest, offset)
        clock.set(offset)
        until(
            lambda: len(numbers(published)) >= jump * total // jumps,  # noqa: B023 - called before the next turn
            lambda: f"publishing stopped at {len(numbers(published))}",
        )
    clock.set(latest)  # what was given a time while the clock was ahead waits until it is that late
    publisher.expect("published all", 120)
    until_handled(handled, set(range(total)))
    duplicates = assert_duplicates_are_flagged(handled)
    assert dead_letters(local_root) == {}
    assert not any("Traceback" in process.output for process in (*consumers, publisher))
    figure(f"wall clock jumps {jumps}x, up to a day", f"{total} published, 0 lost, {duplicates} redeliveries, flagged")


def test_clock_set_forward_redelivers_what_is_at_work(
    begin: Any, clock: WrongClock, local_root: str, tmp_path: Path, figure: Any
) -> None:
    handled = tmp_path / "handled"
    for _ in range(2):
        consumer(begin, handled, 2.0, 30.0)
    wanted = publish(begin, tmp_path / "published", 0, 16)
    time.sleep(0.5)  # they are at work by now, for two seconds: time is the fault here
    assert numbers(handled) == []
    clock.set(HOUR)
    until(lambda: len(numbers(handled)) == 2 * len(wanted), lambda: f"{len(numbers(handled))} were handled", 30)
    assert set(numbers(handled)) == wanted
    assert dead_letters(local_root) == {}
    figure(
        "wall clock set forward an hour, 16 messages at work",
        f"0 lost, {assert_duplicates_are_flagged(handled)} handled twice, flagged: every lease has run out",
    )


def test_clock_set_back_holds_what_waits_no_longer_than_the_jump(
    begin: Any, clock: WrongClock, tmp_path: Path, figure: Any
) -> None:
    jump = 6.0
    handled = tmp_path / "handled"
    # With a subscription but no consumer, messages wait.
    consumer(begin, handled).kill()
    waiting = publish(begin, tmp_path / "published", 0, 100)
    clock.set(-jump)
    began = time.monotonic()
    consumer(begin, handled)
    fresh = publish(begin, tmp_path / "later", 100, 200)
    until_handled(handled, fresh, 30)
    held_up = time.monotonic() - began
    until_handled(handled, waiting, 30)
    seconds = time.monotonic() - began
    assert seconds < jump + SLACK
    figure(
        f"wall clock set back {jump:g} s, 100 messages waiting",
        f"0 lost, all handled after {seconds:.1f} s, 100 new ones after {held_up:.1f} s",
    )


def test_clock_set_back_holds_the_leases_of_the_dead_no_longer_than_the_jump(
    begin: Any, clock: WrongClock, tmp_path: Path, figure: Any
) -> None:
    jump = 4.0
    handled = tmp_path / "handled"
    victim = consumer(begin, handled, 30.0)
    wanted = publish(begin, tmp_path / "published", 0, 16)
    time.sleep(0.5)  # they are leased by now, and their leases will never be renewed: time is the fault here
    victim.kill()
    began = time.monotonic()
    clock.set(-jump)
    consumer(begin, handled)
    until_handled(handled, wanted, 30)
    seconds = time.monotonic() - began
    assert seconds < LEASE + jump + SLACK
    figure(
        f"wall clock set back {jump:g} s, consumer killed at work",
        f"0 lost, all handled after {seconds:.1f} s (lease {LEASE:g} s)",
    )


async def test_tokens_expire_by_the_clock_and_serve_again_when_it_is_right(
    begin: Any, clock: WrongClock, bearer: dict[str, str], tmp_path: Path, figure: Any
) -> None:
    service = begin("faults/service.py", tmp_path / "handled")
    port = await asyncio.to_thread(service.port)
    seen = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=bearer) as client:
        for offset in (0.0, 2 * HOUR, 0.0, -24 * HOUR):
            clock.set(offset)
            seen.append((await client.get("/figures")).status_code)
    assert seen == [200, 401, 200, 200]
    figure("wall clock two hours ahead, right, a day behind", "token of one hour: 401, 200, 200")
