"""A process with metrics, served by a `PrometheusListener`. Reads commands, one a line, and answers each with "ok".

``count N`` adds to a counter, ``record N`` to a histogram, ``handling N`` to an up-down counter, ``backlog N`` sets a
gauge, ``fork`` forks a child that stays, ``flush`` and ``close`` do so with the provider.
"""

from __future__ import annotations

import os
import signal
import sys

from opentelemetry.sdk.metrics import MeterProvider

from totoms.logging.logger import TotoLogger
from totoms.logging.setup import configure_logging, flush_logging
from totoms.telemetry import prometheus

prometheus.INTERVAL = 0.05  # type: ignore[misc]


def main(service: str) -> None:
    configure_logging(json=True)
    listener = prometheus.open_listener(TotoLogger(service))
    provider = MeterProvider([listener.reader])
    meter = provider.get_meter("test")
    counter = meter.create_counter("things", unit="{thing}", description="Things that happened.")
    histogram = meter.create_histogram("work.duration", unit="s", explicit_bucket_boundaries_advisory=[1.0, 10.0])
    handling = meter.create_up_down_counter("handling")
    backlog = meter.create_gauge("backlog.age", unit="s")
    flush_logging()
    print("ok", flush=True)
    for line in sys.stdin:
        command, _, number = line.strip().partition(" ")
        match command:
            case "count":
                counter.add(int(number), {"kind": "test"})
            case "record":
                histogram.record(float(number))
            case "handling":
                handling.add(int(number))
            case "backlog":
                backlog.set(float(number))
            case "fork":
                if not os.fork():
                    provider.shutdown()  # as at the end of a process
                    print(f"child {os.getpid()}", flush=True)
                    signal.pause()
                continue
            case "flush":
                provider.force_flush()
            case "close":
                provider.shutdown()
        flush_logging()
        print("ok", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
