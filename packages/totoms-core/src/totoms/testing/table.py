"""Write the table of capabilities in the documentation from the results of the contracts.

``python -m totoms.testing.table results.json... --into docs/capabilities.md`` replaces the table between the file's two
markers; with ``--check`` it only fails if the table would change. A row whose tests were all skipped stays as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

BEGIN: Final = "<!-- capabilities: begin -->"
END: Final = "<!-- capabilities: end -->"


def render(results: Iterable[Mapping[str, Any]], before: str = "") -> str:
    """Return the table as Markdown.

    Args:
        results: The items of ``results`` in all files that ``pytest --totoms-results`` wrote.
        before: The current table, which provides the rows of backends that were not tested.
    """
    old = {_key(line.split("|")[1:4]): line for line in before.splitlines() if line.startswith("|")}
    runs = sorted(results, key=lambda one: (one["backend"], one["contract"], one["arrangement"]))
    names = sorted({name for run in runs for name in run["capabilities"]})
    lines = ["| Backend | Contract | Arrangement | Behaviours passed | " + " | ".join(names) + " |"]
    lines.append("|---|---|---|---|" + "---|" * len(names))
    for run in runs:
        cells = [run["backend"], run["contract"], run["arrangement"], _score(run["behaviours"])]
        known = {name for other in runs if other["contract"] == run["contract"] for name in other["capabilities"]}
        cells += ["yes" if name in run["capabilities"] else "no" if name in known else "" for name in names]
        line = "| " + " | ".join(cells) + " |"
        lines.append(old.get(_key(cells[:3]), line) if _untested(run["behaviours"]) else line)
    return "\n".join(lines)


def _key(cells: Sequence[str]) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in cells)


def _untested(behaviours: Mapping[str, Mapping[str, str]]) -> bool:
    numbered = [tests for number, tests in behaviours.items() if int(number)]  # the guard needs no backend
    return all(outcome == "skipped" for tests in numbered for outcome in tests.values())


def _score(behaviours: Mapping[str, Mapping[str, str]]) -> str:
    numbered = {int(number): set(tests.values()) for number, tests in behaviours.items()}
    guard = numbered.pop(0, {"passed"})
    passed = [number for number, outcomes in numbered.items() if outcomes == {"passed"}]
    missing = sorted(set(numbered) - set(passed))
    score = f"{len(passed)} of {len(numbered)}"
    if guard & {"failed", "xfailed"}:
        score += " (and some are left out)"
    return f"{score} (not: {', '.join(map(str, missing))})" if missing else score


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 1 if ``--check`` finds the table out of date."""
    parser = argparse.ArgumentParser(prog="python -m totoms.testing.table", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--into", required=True, type=Path, metavar="FILE")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the table is out of date")
    parsed = parser.parse_args(arguments)
    results = [one for path in parsed.results for one in json.loads(path.read_text())["results"]]
    before = parsed.into.read_text()
    if before.count(BEGIN) != 1 or before.count(END) != 1:
        sys.stderr.write(f"{parsed.into} must have one line {BEGIN!r} and one {END!r}.\n")
        return 2
    head, _, rest = before.partition(BEGIN)
    table, _, tail = rest.partition(END)
    after = f"{head}{BEGIN}\n{render(results, table)}\n{END}{tail}"
    if after == before:
        return 0
    if parsed.check:
        sys.stderr.write(f"The table in {parsed.into} is out of date.\n")
        return 1
    parsed.into.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
