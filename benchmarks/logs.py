"""What a log line costs: through `logging` and through `TotoLogger`, with fields and without.

``python -m benchmarks.logs`` writes lines in turn, round after round, and prints the CPU time of one line in the
fastest round, so that what else the machine does hardly counts.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from totoms import TotoLogger
from totoms.context import current_cid, new_cid
from totoms.logging.formats import JSONFormatter, identity
from totoms.logging.handler import BatchHandler
from totoms.logging.setup import configure_logging

GOAL = 1.10
WAYS = {"logging": "logging.getLogger(...).info", "totoms": "exec_context.logger.info"}


def lines() -> dict[tuple[str, str], Callable[[], None]]:
    """Return what writes a line, by way and by the number of fields."""
    library = logging.getLogger("service.payments")
    ours = TotoLogger("benchmark")
    text = "Paid an invoice"
    return {
        ("logging", "none"): lambda: library.info(text),
        ("logging", "one"): lambda: library.info(text, extra={"invoice": 7}),
        ("logging", "three"): lambda: library.info(text, extra={"invoice": 7, "customer": "c-812", "amount": 12.5}),
        ("totoms", "none"): lambda: ours.info(text),
        ("totoms", "one"): lambda: ours.info(text, invoice=7),
        ("totoms", "three"): lambda: ours.info(text, invoice=7, customer="c-812", amount=12.5),
    }


def measure(count: int, rounds: int) -> dict[tuple[str, str], float]:
    """Return the least CPU time of each line in µs."""
    ways = lines()
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, write in ways.items():
            began = time.process_time()
            for _ in range(count):
                write()
            best[name] = min(best[name], (time.process_time() - began) / count * 1e6)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=500)
    parsed = parser.parse_args()
    with Path(os.devnull).open("w") as nowhere:
        handler = BatchHandler(nowhere)
        handler.setFormatter(JSONFormatter())
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.INFO)
        configure_logging()
        identity.describe("benchmark", "1.0.0", "severity")
        current_cid.set(new_cid())
        best = measure(parsed.lines, parsed.rounds)
        handler.flush()
    for way, shown in WAYS.items():
        print(
            f"{shown}: {', '.join(f'{best[way, fields]:.2f} µs with {fields}' for fields in ('none', 'one', 'three'))}"
        )
    for way, shown in WAYS.items():
        print(f"GOAL {best[way, 'one'] / best[way, 'none']:.2f} <= {GOAL:.2f} {shown} with a field, of one without")


if __name__ == "__main__":
    main()
