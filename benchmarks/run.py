"""Run the benchmarks one by one and print one table of goals: ``nox -s bench``, or some, ``nox -s bench -- bus``.

Each benchmark is a module of this folder that prints what it measured, and for each goal a line
``GOAL <figure> <>= or <=> <goal> <what it is>``. Figures are ratios or sizes, taken side by side in one run on one
machine: compare them with each other, not with those of another day.

With ``--start`` nothing is measured: it says whether each benchmark, and each server that one starts, finds what it
needs in this environment.
"""

from __future__ import annotations

import operator
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = (
    "http_requests",
    "short_cuts",
    "requires",
    "masking",
    "logs",
    "telemetry",
    "imports",
    "bus",
    "memory",
    "aws_files",
    "aws_messages",
    "aws_consuming",
    "aws_pushes",
    "gcp_files",
    "gcp_messages",
    "azure_files",
    "azure_messages",
)
SERVERS = ("azure.service_bus.server", "gcp.pubsub")
"""The stand-ins that benchmarks start as processes of their own."""
PROGRAMS = {
    "nats-server": "apt-get install nats-server; without it FastStream on NATS JetStream is not measured",
    "wrk": "apt-get install wrk; without it a slower client of our own sends the requests",
}
PLACES = "/usr/sbin:/usr/local/sbin"
"""Where systems install servers; a developer's PATH may not have these folders."""
GOAL = re.compile(r"^GOAL (?P<figure>[0-9.]+) (?P<relation>[<>]=) (?P<goal>[0-9.]+) (?P<what>.+)$")
RELATIONS = {">=": operator.ge, "<=": operator.le}


def run(name: str) -> tuple[list[tuple[str, float, str, float]], str | None]:
    """Run one benchmark, passing its output on; return its goals, and what went wrong if something did."""
    print(f"\n=== {name}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    goals = []
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            match = GOAL.match(line)
            if match:
                goals.append((match["what"], float(match["figure"]), match["relation"], float(match["goal"])))
            elif not line.startswith('{"severity"'):  # the log of a service that is measured in the same process
                print(line, end="", flush=True)
    return goals, f"{name}: exit status {process.returncode}" if process.returncode else None


def missing_programs() -> list[str]:
    """Return a line for each program that is not on this machine, with the command that installs it."""
    return [
        f"NOT INSTALLED  {name}: {remedy}"
        for name, remedy in PROGRAMS.items()
        if not (shutil.which(name) or shutil.which(name, path=PLACES))
    ]


def start() -> int:
    """Import each benchmark and start each server with ``--help``; return 1 when one of them cannot."""
    commands = {name: ["-c", f"import benchmarks.{name}"] for name in BENCHMARKS}
    commands |= {server: ["tests/standins", server, "--help"] for server in SERVERS}
    failures = []
    for name, command in commands.items():
        done = subprocess.run([sys.executable, *command], cwd=HERE.parent, capture_output=True, text=True, check=False)
        print(f"{'starts' if done.returncode == 0 else 'FAILED'}  {name}", flush=True)
        if done.returncode:
            failures.append(name)
            print(done.stderr, flush=True)
    return 1 if failures else 0


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; return 1 when one of them failed. A missed goal is only reported."""
    missing = missing_programs()
    for line in missing:
        print(line, flush=True)
    if names == ["--start"]:
        return start()
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"No benchmark {', '.join(unknown)}; there is: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    )
    goals, failures = [], []
    for name in names or BENCHMARKS:
        found, failure = run(name)
        goals += found
        if failure:
            failures.append(failure)
    width = max((len(what) for what, *_ in goals), default=0)
    print("\n=== goals")
    for what, figure, relation, goal in goals:
        verdict = "pass" if RELATIONS[relation](figure, goal) else "MISS"
        print(f"{verdict}  {what:<{width}}  {figure:>9.2f}  {relation} {goal:g}")
    for line in missing:
        print(line)
    for failure in failures:
        print(f"FAILED  {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
