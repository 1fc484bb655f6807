"""Files of the local bus are deleted or truncated between two runs: an error names the file, or no message is lost."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from support.faults.oracle import numbers, until_handled

pytestmark = pytest.mark.faults

FILES = ("bus.sqlite3", "bus.sqlite3-wal", "bus.sqlite3-shm", "bus.state")
TOTAL = 50


def leave_messages(launch: Any, root: Path, folder: Path, how: str) -> set[int]:
    """Leave unhandled messages of processes that were closed or killed."""
    consumer = launch("faults/consumer.py", folder / "nobody", root=root)
    consumer.port()
    consumer.send(signal.SIGSTOP)
    publisher = launch("faults/publisher.py", folder / "published", 0, TOTAL, root=root)
    publisher.expect("published all")
    publisher.kill()
    consumer.kill()
    if how == "closed":  # the process that closes last merges the log
        assert launch("faults/publisher.py", folder / "published", 0, TOTAL, root=root).wait() == 0
    return set(numbers(folder / "published"))


def outcome(launch: Any, root: Path, handled: Path, wanted: set[int], name: str) -> str:
    consumer = launch("faults/consumer.py", handled, 1, root=root)
    consumer.expect(r"^totoms: |Listening on")
    if "Listening on" in consumer.output:
        until_handled(handled, wanted, 30)
        consumer.kill()
        return "nothing missing"
    assert consumer.wait() != 0
    (line,) = [line for line in consumer.lines if line.startswith("totoms: ")]
    assert name in line
    assert "Traceback" not in consumer.output
    return "told by name"


def test_deleted_or_cut_files_are_reported_by_name_and_never_an_empty_queue(
    launch: Any, tmp_path: Path, figure: Any
) -> None:
    seen: Counter[str] = Counter()
    for how in ("closed", "killed"):
        for name in FILES:
            for size in (None, 0.0, 0.5):
                folder = tmp_path / f"{how}-{name}-{size}"
                root = folder / "root"
                root.mkdir(parents=True)
                wanted = leave_messages(launch, root, folder, how)
                file = root / name
                if not file.exists():
                    continue
                if size is None:
                    file.unlink()
                else:
                    with file.open("r+b") as opened:
                        opened.truncate(int(file.stat().st_size * size))
                seen[outcome(launch, root, folder / "handled", wanted, name)] += 1
    assert seen["told by name"] > seen["nothing missing"] > 0
    figure(
        "local bus's files deleted or cut between runs",
        f"{seen.total()} times: {seen['told by name']} told by name, {seen['nothing missing']} with nothing missing",
    )
