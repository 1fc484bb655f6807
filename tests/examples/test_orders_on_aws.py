"""`make demo EXAMPLE=orders BACKEND=aws`: the same orders on a ministack."""

from __future__ import annotations

from pathlib import Path

from support.aws import kit as aws_kit
from support.orders import run_the_lines_and_stop


def test_printed_lines_work_and_both_services_drain(tmp_path: Path) -> None:
    aws_kit.server()  # where there is no ministack, this says so
    run_the_lines_and_stop(tmp_path, BACKEND="aws")
