"""What the benchmarks of files share: a store's bare SDK and totoms doing the same, for speed and for memory.

For speed both take turns in one process, each figure the median; for memory each has a process of its own, which is
read from /proc: on Linux.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUCKET = "bench-files"
MIB = 1024 * 1024
CONTENT_BYTES = 64 * MIB
ROUNDS = 25
GOAL_RATIO, GOAL_MEMORY_MIB = 0.95, 24

Sides = tuple[Callable[[str, str], Any], Callable[[str, str], Any]]
"""How a file goes up, from a path to a key, and down, from a key to a path."""


@dataclass(frozen=True)
class FileBenchmark:
    """A benchmark of one store.

    Attributes:
        module: Its own name, to run parts of it in processes of their own.
        store: What the store is called.
        sdk: What its SDK is called.
        bare: Gives what the SDK does.
        server: Runs what answers, and gives the variables that lead to it.
        more: Sizes beyond 64 MiB that go up as well.
    """

    module: str
    store: str
    sdk: str
    bare: Callable[[], Sides]
    server: Callable[[], AbstractContextManager[dict[str, str]]]
    more: tuple[int, ...] = ()

    def main(self) -> None:
        """Do what the arguments say: a part, or all of it."""
        if sys.argv[1:2] == ["compare"]:
            self._compare(sys.argv[2])
        elif sys.argv[1:]:
            self._hold(*sys.argv[1:])
        else:
            self._measure()

    def _compare(self, path: str) -> None:
        """Let both take turns; print the median seconds, of the SDK first, and the median of the ratios."""
        for number, direction in enumerate(("up", "down")):
            sides = [self.bare()[number], _totoms()[number]]
            arguments = (path, "key") if direction == "up" else ("key", f"{path}.down")
            found: list[tuple[float, ...]] = []
            for turn in range(ROUNDS + 2):
                seconds = {}
                for side in (0, 1) if turn % 2 else (1, 0):
                    begun = time.perf_counter()
                    sides[side](*arguments)
                    seconds[side] = time.perf_counter() - begun
                found.append((seconds[0], seconds[1], seconds[0] / seconds[1]))
            print(direction, *(statistics.median(figures) for figures in zip(*found[2:], strict=True)))

    def _hold(self, who: str, direction: str, path: str) -> None:
        """Move something small to warm up, then a file, and print the MiB above idle that were held at most."""
        up, down = self.bare() if who == "bare" else _totoms()
        small = Path(path).with_name("small")
        small.write_bytes(b"x")
        up(str(small), "small")
        down("small", f"{path}.down")
        idle = _status_mib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        for _ in range(3):
            if direction == "up":
                up(path, "key")
            else:
                down("key", f"{path}.down")
        print(_status_mib("VmHWM") - idle)

    def _measure(self) -> None:
        ratios, most = {}, 0.0
        with tempfile.TemporaryDirectory() as folder, self.server() as variables:
            path = Path(folder) / "file"
            path.write_bytes(b"0123456789abcdef" * (CONTENT_BYTES // 16))
            for line in self._run(variables, "compare", str(path)).splitlines():
                direction, *figures = line.split()
                theirs, ours, ratios[direction] = map(float, figures)
                speeds = [CONTENT_BYTES / MIB / seconds for seconds in (theirs, ours)]
                print(f"64 MiB {direction:<5} {self.sdk} {speeds[0]:5.0f} MiB/s, totoms {speeds[1]:5.0f} MiB/s")
            sizes = ((CONTENT_BYTES, "down"), (CONTENT_BYTES, "up"), *((size, "up") for size in self.more))
            for size, direction in sizes:
                with path.open("r+b") as file:
                    file.truncate(size)
                held = {who: float(self._run(variables, who, direction, str(path))) for who in ("bare", "totoms")}
                told = f"{self.sdk} {held['bare']:.1f}, totoms {held['totoms']:.1f}"
                print(f"{size // MIB} MiB {direction:<5} {told} MiB above idle")
                most = max(most, held["totoms"])
        for direction, ratio in ratios.items():
            print(f"GOAL {ratio:.2f} >= {GOAL_RATIO} a 64 MiB file {direction} on {self.store}, of {self.sdk}")
        print(f"GOAL {most:.1f} <= {GOAL_MEMORY_MIB} a file up or down on {self.store}, MiB above idle")

    def _run(self, variables: dict[str, str], *arguments: str) -> str:
        command = [sys.executable, "-m", self.module, *arguments]
        return subprocess.run(
            command, env={**os.environ, **variables}, check=True, stdout=subprocess.PIPE, text=True
        ).stdout


def _totoms() -> Sides:
    from totoms import CloudStorage

    storage = CloudStorage(BUCKET)
    return storage.upload_file, storage.download_file


def _status_mib(field: str) -> float:
    """Return a field of this process's status in MiB: VmRSS is what it holds, VmHWM the most it held."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) / 1024
