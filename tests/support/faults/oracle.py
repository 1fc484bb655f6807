"""What was acknowledged against what was handled: files of numbers, one line each, written by the processes."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path


def numbers(path: Path) -> list[int]:
    return [int(line.split()[0]) for line in whole_lines(path)]


def whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    text = path.read_text()
    return text[: text.rfind("\n") + 1].splitlines()


def until(found: Callable[[], bool], what: Callable[[], str], deadline: float = 120.0) -> None:
    """Wait for what other processes do, hence by looking again."""
    ends = time.monotonic() + deadline
    while not found():
        if time.monotonic() > ends:
            raise AssertionError(what())
        time.sleep(0.05)


def until_handled(handled: Path, wanted: set[int], deadline: float = 120.0) -> None:
    """Wait until every wanted number was handled."""

    def missing() -> set[int]:
        return wanted - set(numbers(handled))

    until(
        lambda: not missing(), lambda: f"{len(missing())} of {len(wanted)} acknowledged messages not handled", deadline
    )


def assert_duplicates_are_flagged(handled: Path) -> int:
    """Of the deliveries of one message, all but the first must say that they are not the first. Return how many."""
    attempts: dict[str, list[int]] = {}
    for line in whole_lines(handled):
        _, attempt, message_id, _ = line.split()
        attempts.setdefault(message_id, []).append(int(attempt))
    for seen in attempts.values():
        assert len(set(seen)) == len(seen), "two deliveries of one message with the same attempt number"
    return sum(len(seen) - 1 for seen in attempts.values())


def dead_letters(root: str | Path) -> dict[int, int]:
    """Return the numbers in the dead-letter store of the local bus, each with its attempts."""
    with closing(sqlite3.connect(f"file:{root}/bus.sqlite3?mode=ro", uri=True)) as database:
        rows = database.execute("select body, attempts from dead_letters").fetchall()
    return {int(json.loads(body)["id"]): attempts for body, attempts in rows}


def problems(acknowledged: set[int], poison: set[int], handled: set[int], dead: set[int]) -> list[str]:
    """Tell what must not be: of all that was acknowledged, poison ends among the dead letters, the rest is handled."""
    found = {
        "acknowledged and lost": acknowledged - handled - dead,
        "poison not dead-lettered": (acknowledged & poison) - dead,
        "poison handled": handled & poison,
        "good and dead-lettered": dead - poison,
    }
    return [f"{len(them)} {what}: {sorted(them)[:5]}" for what, them in found.items() if them]
