"""Files on S3, beside bare boto3 (`upload_file`, `download_file`) doing the same, and the memory that takes.

The server answers without storing anything. For speed both take turns in one process, each figure the median; for
memory each has a process of its own. Run as ``python -m benchmarks.aws_files``; memory is read from /proc: on Linux.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.canned_aws import CONTENT_BYTES

ROUNDS = 25
MIB = 1024 * 1024
LARGER_BYTES = 512 * MIB
GOAL_RATIO, GOAL_MEMORY_MIB = 0.95, 24


@contextlib.contextmanager
def canned_aws(*arguments: str) -> Iterator[dict[str, str]]:
    """Run the canned server and give the variables with which the SDK asks it."""
    command = [sys.executable, "-m", "benchmarks.canned_aws", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(server.stdout.readline())}",
                "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench",
                "AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "eu-north-1",
                "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "HYPERSCALER": "aws",
            }  # fmt: skip
        finally:
            server.kill()


def status_mib(field: str) -> float:
    """Return a field of this process's status in MiB: VmRSS is what it holds, VmHWM the most it held."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) / 1024


def compare(path: str) -> None:
    """Let both take turns, up and down; print the median seconds, of boto3 first, and the median of the ratios."""
    for number, direction in enumerate(("up", "down")):
        sides = [_boto3()[number], _totoms()[number]]
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


def hold(who: str, direction: str, path: str) -> None:
    """Move something small to warm up, then a file, and print the MiB above idle that were held at most."""
    up, down = _boto3() if who == "boto3" else _totoms()
    small = Path(path).with_name("small")
    small.write_bytes(b"x")
    up(str(small), "small")
    down("small", f"{path}.down")
    idle = status_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    for _ in range(3):
        if direction == "up":
            up(path, "key")
        else:
            down("key", f"{path}.down")
    print(status_mib("VmHWM") - idle)


def _boto3() -> tuple[Any, Any]:
    import boto3

    s3 = boto3.client("s3")
    return (
        lambda path, key: s3.upload_file(path, "bench-files", key),
        lambda key, path: s3.download_file("bench-files", key, path),
    )


def _totoms() -> tuple[Any, Any]:
    from totoms import CloudStorage

    storage = CloudStorage("bench-files")
    return storage.upload_file, storage.download_file


def run(variables: dict[str, str], *arguments: str) -> str:
    """Run a part of this in a process of its own and return what it prints."""
    command = [sys.executable, "-m", "benchmarks.aws_files", *arguments]
    return subprocess.run(
        command, env={**os.environ, **variables}, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def measure() -> None:
    """Measure and print."""
    ratios, most = {}, 0.0
    with tempfile.TemporaryDirectory() as folder, canned_aws() as variables:
        path = Path(folder) / "file"
        path.write_bytes(b"0123456789abcdef" * (CONTENT_BYTES // 16))
        for line in run(variables, "compare", str(path)).splitlines():
            direction, *figures = line.split()
            theirs, ours, ratios[direction] = map(float, figures)
            speeds = [CONTENT_BYTES / MIB / seconds for seconds in (theirs, ours)]
            print(f"64 MiB {direction:<5} boto3 {speeds[0]:5.0f} MiB/s, totoms {speeds[1]:5.0f} MiB/s")
        for size, direction in ((CONTENT_BYTES, "down"), (CONTENT_BYTES, "up"), (LARGER_BYTES, "up")):
            with path.open("r+b") as file:
                file.truncate(size)
            held = {who: float(run(variables, who, direction, str(path))) for who in ("boto3", "totoms")}
            told = ", ".join(f"{who} {mib:.1f}" for who, mib in held.items())
            print(f"{size // MIB} MiB {direction:<5} {told} MiB above idle")
            most = max(most, held["totoms"])
    for direction, ratio in ratios.items():
        print(f"GOAL {ratio:.2f} >= {GOAL_RATIO} a 64 MiB file {direction}, of bare boto3")
    print(f"GOAL {most:.1f} <= {GOAL_MEMORY_MIB} a file up or down, MiB above idle")


if __name__ == "__main__":
    if sys.argv[1:2] == ["compare"]:
        compare(sys.argv[2])
    elif sys.argv[1:]:
        hold(*sys.argv[1:])
    else:
        measure()
