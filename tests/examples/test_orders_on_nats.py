"""`make demo EXAMPLE=orders BACKEND=nats`: the same orders on a nats-server."""

from __future__ import annotations

from pathlib import Path

from support.emulators import require
from support.orders import run_the_lines_and_stop


def test_printed_lines_work_and_both_services_drain(tmp_path: Path) -> None:
    require("nats-server", remedy="apt-get install nats-server")
    run_the_lines_and_stop(tmp_path, BACKEND="nats")
