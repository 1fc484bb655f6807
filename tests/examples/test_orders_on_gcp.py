"""`make demo EXAMPLE=orders BACKEND=gcp`: the same orders on stand-ins for Google Cloud."""

from __future__ import annotations

import os
from pathlib import Path

from support.orders import run_the_lines_and_stop


def test_printed_lines_work_and_both_services_drain(tmp_path: Path) -> None:
    (tmp_path / "gcloud").touch(0o755)  # one that has no emulator
    run_the_lines_and_stop(tmp_path, BACKEND="gcp", PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
