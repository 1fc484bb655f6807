"""`make demo EXAMPLE=orders BACKEND=azure`: the same orders on Azurite, and on stand-ins for the rest of Azure."""

from __future__ import annotations

from pathlib import Path

from support.azure.storage import require_azurite
from support.orders import run_the_lines_and_stop


def test_printed_lines_work_and_both_services_drain(tmp_path: Path) -> None:
    require_azurite()
    run_the_lines_and_stop(tmp_path, BACKEND="azure")
