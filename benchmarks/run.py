"""Run the benchmarks one by one and print one table of goals: ``nox -s bench``, or some, ``nox -s bench -- bus``.

Each benchmark is a module of this folder that prints what it measured, and for each goal a line
``GOAL <figure> <>= or <=> <goal> <what it is>``. Figures are ratios or sizes, taken side by side in one run on one
machine: compare them with each other, not with those of another day.
"""

from __future__ import annotations

import operator
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = (
    "http_requests", "imports", "bus", "memory",
    "aws_files", "aws_messages", "aws_consuming", "aws_pushes", "gcp_files", "gcp_messages",
    "azure_files", "azure_messages",
)  # fmt: skip
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


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; return 1 when one of them failed. A goal that is missed is told, no failure."""
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
    for failure in failures:
        print(f"FAILED  {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
