"""How fast a delegate answers in this tree, compared with another version of totoms: for "no slower than before".

``python -m benchmarks.http_against OTHER_PYTHON`` takes the interpreter of an environment that holds the other version
(``nox -s bench --install-only`` in a checkout of it makes one). Both services run all the time and are loaded in turn,
in short slices, so that a machine that changes its speed changes it for both. Two figures for each method: requests a
second, and the processor time that the service spent on one request, which depends least on what else the machine does.
Each is the median of the slices, and the ratio that of the pairs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.http_requests import PATHS, environment, fake_secrets, load, service, write_tokens

TICKS = os.sysconf("SC_CLK_TCK")


def processor_time(port: int) -> float:
    """Return the seconds of processor time used so far by the process that serves `port`."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.joinpath("cmdline").read_bytes().endswith(f"\0totoms\0{port}\0".encode()):
                fields = folder.joinpath("stat").read_text().rpartition(")")[2].split()
                return (int(fields[11]) + int(fields[12])) / TICKS  # utime and stime, see proc(5)
    raise SystemExit(f"no process serves {port}")


def measure(other: str, seconds: int, rounds: int) -> dict[str, list[dict[str, tuple[float, float]]]]:
    """Return, for each method and slice, the rate and the µs of processor time per request of `this` and `other`."""
    slices: dict[str, list[dict[str, tuple[float, float]]]] = {method: [] for method in PATHS}
    with tempfile.TemporaryDirectory() as temporary, fake_secrets() as secrets, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        tokens = write_tokens(folder)["one"]
        ports = {}
        for name, python in {"this": sys.executable, "other": other}.items():
            variables = environment(secrets, folder / name)
            ports[name] = stack.enter_context(service(python, "totoms", variables))
        for number in range(rounds + 1):
            for method, found in slices.items():
                pair = {}
                for name in sorted(ports, reverse=bool(number % 2)):
                    before = processor_time(ports[name])
                    rate = load(ports[name], method, tokens, seconds, folder)
                    spent = processor_time(ports[name]) - before
                    pair[name] = (rate, spent / (rate * seconds) * 1e6)
                if number:  # the first slice warms up
                    found.append(pair)
    return slices


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", help="the Python of an environment with the other version")
    parser.add_argument("--seconds", type=int, default=2, help="of load for each slice")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    for method, slices in measure(options.other, options.seconds, options.rounds).items():
        for index, unit in ((0, "requests/s"), (1, "µs of processor time per request")):
            this, other = (statistics.median(pair[name][index] for pair in slices) for name in ("this", "other"))
            ratios = [pair["this"][index] / pair["other"][index] for pair in slices]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"{method:5}{this:9.1f} to {other:9.1f} {unit:34}{middle:6.3f} (half within {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
